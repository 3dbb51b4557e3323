//! Reading what was written: scenarios R1 to R7 of the acceptance list.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use litefs_diesel::core::{Position, Role, RoleKind};
use litefs_diesel::{Consistency, Failure, LiteFs, LiteFsConnection, WhenBehind};
use litefs_testkit::{Cluster, Node};
use litefs_tests::{Bed, DATABASE, PATIENCE, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
const DELAY: Duration = Duration::from_millis(200);

fn bed(configure: impl Fn(litefs_diesel::LiteFsBuilder) -> litefs_diesel::LiteFsBuilder) -> Bed {
    let bed = Bed::configured(&["a", "b"], |_, builder| configure(builder));
    bed.schema(SCHEMA);
    bed
}

fn write(conn: &mut LiteFsConnection, text: &str) {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn).unwrap();
}

fn count(conn: &mut LiteFsConnection) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

#[test]
fn r1_a_write_is_seen_by_the_same_and_by_another_connection_however_slow_replication_is() {
    let bed = bed(|builder| builder);
    let (mut one, mut other) = (bed.conn("b"), bed.conn("b"));
    bed.cluster.node("b").set_replication_delay(DELAY).unwrap();
    write(&mut one, "x");
    let started = Instant::now();
    assert_eq!(count(&mut other), 1);
    assert!(started.elapsed() >= DELAY / 2, "it was replicated already: {:?}", started.elapsed());
    assert_eq!(count(&mut one), 1);
    assert_eq!(bed.litefs("b").round_trips(), 1, "the reads were local");
}

#[test]
fn r2_with_session_consistency_other_connections_do_not_wait() {
    let bed = bed(|builder| builder.consistency(Consistency::Session));
    let (mut one, mut other) = (bed.conn("b"), bed.conn("b"));
    bed.cluster.node("b").stall_replication().unwrap();
    write(&mut one, "x");
    assert_eq!(count(&mut other), 0);
    bed.cluster.node("b").resume_replication().unwrap();
    assert_eq!(count(&mut one), 1);
}

#[test]
fn r3_eventual_reads_never_wait() {
    let bed = bed(|builder| builder.consistency(Consistency::Eventual));
    let mut conn = bed.conn("b");
    bed.cluster.node("b").stall_replication().unwrap();
    write(&mut conn, "x");
    assert_eq!(count(&mut conn), 0);
    assert_eq!(bed.litefs("b").round_trips(), 1);
}

#[test]
fn r4_a_strong_read_sees_what_another_node_was_told_is_done() {
    let bed = bed(|builder| builder);
    let mut reader = bed.conn("b");
    for round in 1..=20 {
        bed.cluster.node("b").set_replication_delay(Duration::from_millis(20)).unwrap();
        write(&mut bed.conn("a"), "x");
        reader.set_consistency(Consistency::Strong);
        assert_eq!(count(&mut reader), round);
    }
    reader.set_consistency(Consistency::ReadYourWrites);
    bed.cluster.node("b").stall_replication().unwrap();
    write(&mut bed.conn("a"), "x");
    assert_eq!(count(&mut reader), 20, "another node's write is nothing to wait for");
}

fn stalled(policy: WhenBehind) -> (Bed, LiteFsConnection) {
    let bed = bed(|builder| builder.when_behind(policy).read_timeout(Duration::from_millis(150)));
    let mut conn = bed.conn("b");
    bed.cluster.node("b").stall_replication().unwrap();
    write(&mut conn, "x");
    (bed, conn)
}

#[test]
fn r5_at_the_limit_a_read_goes_to_the_primary() {
    let (bed, mut conn) = stalled(WhenBehind::ReadPrimary);
    let started = Instant::now();
    assert_eq!(count(&mut conn), 1);
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(bed.litefs("b").round_trips(), 2);
}

#[test]
fn r5_a_read_that_goes_to_the_primary_waits_for_no_open_transaction() {
    let (bed, mut other) = stalled(WhenBehind::ReadPrimary);
    let mut conn = bed.conn("b");
    // The transaction stays open for as long as the read takes: waiting for it would be waiting for oneself.
    conn.immediate_transaction(|conn| {
        write(conn, "y");
        assert_eq!(count(&mut other), 1);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(count(&mut other), 2);
}

#[test]
fn r5_at_the_limit_a_read_takes_what_is_there() {
    let (bed, mut conn) = stalled(WhenBehind::ReadStale);
    assert_eq!(count(&mut conn), 0);
    assert_eq!(bed.litefs("b").round_trips(), 1);
}

#[test]
fn r5_at_the_limit_a_read_fails() {
    let (_bed, mut conn) = stalled(WhenBehind::Fail);
    let error = notes::table.count().get_result::<i64>(&mut conn).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Behind), "{error}");
}

#[test]
fn a_node_that_has_caught_up_with_an_idle_primary_reads_at_once() {
    let cluster = Cluster::builder().nodes(["a", "b"]).database(DATABASE).start().unwrap();
    let (a, b) = (cluster.node("a"), cluster.node("b"));
    let mut plain = SqliteConnection::establish(&a.database_url(DATABASE)).unwrap();
    plain.batch_execute(SCHEMA).unwrap();
    cluster.wait_for_sync(PATIENCE).unwrap();
    // The primary's process does not know of the position at which this leaves the replica.
    b.stall_replication().unwrap();
    plain.batch_execute("INSERT INTO notes (text) VALUES ('before')").unwrap();
    let start = |node: &Node| {
        LiteFs::builder(&node.database_url(DATABASE))
            .listen("127.0.0.1:0".parse().unwrap())
            .tracker(|tracker| tracker.http_url(&node.http_url()).node(node.name()))
            .read_timeout(Duration::from_millis(800))
            .when_behind(WhenBehind::Fail)
            .start()
            .unwrap()
    };
    let (on_a, on_b) = (start(a), start(b));
    wait_until("the roles", || on_a.role() == Role::Primary && on_b.role().kind() == RoleKind::Replica);
    wait_until("the server", || on_a.rpc_address().is_some());
    on_b.tracker().learn_address(&"a".parse().unwrap(), &on_a.rpc_address().unwrap().to_string());
    write(&mut on_a.establish().unwrap(), "after");
    on_b.require(on_a.token().unwrap());
    let mut reader = on_b.establish().unwrap();
    reader.set_consistency(Consistency::Eventual);
    // Reads that are held back show that the primary has told how far it is; the second one, a second later, that it has told
    // of all that was written.
    wait_until("the primary's answers", || count(&mut reader) == 0 && on_b.held_reads().0 > 1);
    b.resume_replication().unwrap();
    reader.set_consistency(Consistency::ReadYourWrites);
    assert_eq!(count(&mut reader), 2);
}

#[test]
fn r6_a_token_from_one_process_is_honoured_in_another() {
    let bed = Bed::start(&["a", "b", "c"]);
    bed.schema(SCHEMA);
    let mut writer = bed.conn("b");
    bed.cluster.node("c").set_replication_delay(DELAY).unwrap();
    write(&mut writer, "x");
    let token = bed.litefs("b").token().unwrap().to_string();
    let mut reader = bed.conn("c");
    assert_eq!(count(&mut reader), 0, "without the token nothing is waited for");
    bed.litefs("c").require(token.parse::<Position>().unwrap());
    assert_eq!(count(&mut reader), 1);
}

#[test]
fn r7_after_a_failover_that_rewinds_the_txid_no_read_hangs() {
    let bed = bed(|builder| builder.read_timeout(Duration::from_secs(5)));
    let (mut on_a, mut on_b) = (bed.conn("a"), bed.conn("b"));
    for i in 0..3 {
        write(&mut on_b, &i.to_string());
    }
    bed.sync();
    let before = bed.litefs("b").token().unwrap();
    // b has acknowledged writes in its watermark that the new history of b does not contain.
    bed.cluster.promote_losing_tail("b", 2).unwrap();
    bed.settle();
    let started = Instant::now();
    assert_eq!(count(&mut on_b), 1);
    write(&mut on_b, "new");
    bed.sync();
    // And back: a's file went back too, and a becomes a replica whose watermark is older than both.
    assert_eq!(count(&mut on_a), 2);
    write(&mut on_a, "newer");
    assert_eq!(count(&mut on_a), 3);
    bed.cluster.promote("a").unwrap();
    bed.settle();
    write(&mut on_b, "newest");
    assert_eq!(count(&mut on_b), 4);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let after = bed.litefs("b").token().unwrap();
    assert_ne!(before.checksum, after.checksum);
}

#[test]
fn r7_a_replica_that_waits_for_a_lost_write_is_released_when_the_new_primary_is_known() {
    let bed = Bed::configured(&["a", "b", "c"], |_, builder| builder.read_timeout(Duration::from_secs(8)));
    bed.schema(SCHEMA);
    let mut conn = bed.conn("c");
    bed.cluster.node("c").stall_replication().unwrap();
    for _ in 0..3 {
        write(&mut conn, "lost");
    }
    std::thread::scope(|scope| {
        let started = Instant::now();
        let read = scope.spawn(|| count(&mut conn));
        bed.cluster.promote_losing_tail("b", 3).unwrap();
        bed.cluster.node("c").resume_replication().unwrap();
        assert_eq!(read.join().unwrap(), 0, "the writes are in no living history");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    });
}

#[test]
fn reads_go_on_while_no_primary_is_known() {
    let bed = bed(|builder| builder);
    write(&mut bed.conn("a"), "x");
    bed.sync();
    bed.cluster.lose_primary().unwrap();
    wait_until("nobody is primary", || bed.litefs("b").role() == Role::Unknown);
    assert_eq!(count(&mut bed.conn("b")), 1);
}
