//! Read-your-writes and consistency levels: scenarios R1 to R7 of the acceptance list.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use litefs_core::{Role, RoleKind};
use litefs_diesel::{Consistency, Failure, LiteFs, LiteFsConnection, WhenBehind};
use litefs_testkit::{Cluster, Node};
use litefs_tests::{DATABASE, TIMEOUT, TestCluster, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
const DELAY: Duration = Duration::from_millis(200);

fn test_cluster(
    configure: impl Fn(litefs_diesel::LiteFsBuilder) -> litefs_diesel::LiteFsBuilder,
) -> TestCluster {
    let test = TestCluster::configured(&["a", "b"], |_, builder| configure(builder));
    test.schema(SCHEMA);
    test
}

fn write(conn: &mut LiteFsConnection, text: &str) {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn).unwrap();
}

fn count(conn: &mut LiteFsConnection) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

#[test]
fn r1_a_write_is_visible_despite_slow_replication() {
    let test = test_cluster(|builder| builder);
    let (mut one, mut other) = (test.conn("b"), test.conn("b"));
    test.cluster.node("b").set_replication_delay(DELAY).unwrap();
    write(&mut one, "x");
    let started = Instant::now();
    assert_eq!(count(&mut other), 1);
    assert!(started.elapsed() >= DELAY / 2, "it was replicated already: {:?}", started.elapsed());
    assert_eq!(count(&mut one), 1);
    assert_eq!(test.litefs("b").round_trips(), 1, "the reads were local");
}

#[test]
fn r2_with_session_consistency_other_connections_do_not_wait() {
    let test = test_cluster(|builder| builder.consistency(Consistency::Session));
    let (mut one, mut other) = (test.conn("b"), test.conn("b"));
    test.cluster.node("b").stall_replication().unwrap();
    write(&mut one, "x");
    assert_eq!(count(&mut other), 0);
    test.cluster.node("b").resume_replication().unwrap();
    assert_eq!(count(&mut one), 1);
}

#[test]
fn r3_eventual_reads_never_wait() {
    let test = test_cluster(|builder| builder.consistency(Consistency::Eventual));
    let mut conn = test.conn("b");
    test.cluster.node("b").stall_replication().unwrap();
    write(&mut conn, "x");
    assert_eq!(count(&mut conn), 0);
    assert_eq!(test.litefs("b").round_trips(), 1);
}

#[test]
fn r4_a_strong_read_sees_the_writes_of_other_nodes() {
    let test = test_cluster(|builder| builder);
    let mut reader = test.conn("b");
    for round in 1..=20 {
        test.cluster.node("b").set_replication_delay(Duration::from_millis(20)).unwrap();
        write(&mut test.conn("a"), "x");
        reader.set_consistency(Consistency::Strong);
        assert_eq!(count(&mut reader), round);
    }
    reader.set_consistency(Consistency::ReadYourWrites);
    test.cluster.node("b").stall_replication().unwrap();
    write(&mut test.conn("a"), "x");
    assert_eq!(count(&mut reader), 20, "a read does not wait for another node's write");
}

fn stalled(policy: WhenBehind) -> (TestCluster, LiteFsConnection) {
    let test = test_cluster(|builder| {
        builder.when_behind(policy).read_timeout(Duration::from_millis(150))
    });
    let mut conn = test.conn("b");
    test.cluster.node("b").stall_replication().unwrap();
    write(&mut conn, "x");
    (test, conn)
}

#[test]
fn r5_at_the_limit_a_read_is_forwarded() {
    let (test, mut conn) = stalled(WhenBehind::ReadPrimary);
    let started = Instant::now();
    assert_eq!(count(&mut conn), 1);
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(test.litefs("b").round_trips(), 2);
}

#[test]
fn r5_a_read_on_the_primary_ignores_open_transactions() {
    let (test, mut other) = stalled(WhenBehind::ReadPrimary);
    let mut conn = test.conn("b");
    // The transaction stays open until the read returns, so a read that waited for it would
    // deadlock.
    conn.immediate_transaction(|conn| {
        write(conn, "y");
        assert_eq!(count(&mut other), 1);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(count(&mut other), 2);
}

#[test]
fn r5_at_the_limit_a_read_uses_the_local_data() {
    let (test, mut conn) = stalled(WhenBehind::ReadStale);
    assert_eq!(count(&mut conn), 0);
    assert_eq!(test.litefs("b").round_trips(), 1);
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
    cluster.wait_for_sync(TIMEOUT).unwrap();
    // The primary's process does not know the position at which this leaves the replica.
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
    wait_until("the roles", || {
        on_a.role() == Role::Primary && on_b.role().kind() == RoleKind::Replica
    });
    wait_until("the server", || on_a.rpc_address().is_some());
    on_b.tracker().learn_address(&"a".parse().unwrap(), &on_a.rpc_address().unwrap().to_string());
    write(&mut on_a.establish().unwrap(), "after");
    on_b.read_after(on_a.position().unwrap());
    let mut reader = on_b.establish().unwrap();
    reader.set_consistency(Consistency::Eventual);
    // A read that is held back shows that the primary has reported its position; the second one, a
    // second later, that it has reported all writes.
    wait_until("the primary's answers", || count(&mut reader) == 0 && on_b.held_reads().0 > 1);
    b.resume_replication().unwrap();
    reader.set_consistency(Consistency::ReadYourWrites);
    assert_eq!(count(&mut reader), 2);
}

#[test]
fn r6_a_token_from_one_process_is_honoured_in_another() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    let mut writer = test.conn("b");
    test.cluster.node("c").set_replication_delay(DELAY).unwrap();
    write(&mut writer, "x");
    let position = test.litefs("b").position().unwrap().to_string();
    let mut reader = test.conn("c");
    assert_eq!(count(&mut reader), 0, "without the position a read does not wait");
    test.litefs("c").read_after(position.parse().unwrap());
    assert_eq!(count(&mut reader), 1);
}

#[test]
fn r7_after_a_failover_that_rewinds_the_txid_no_read_hangs() {
    let test = test_cluster(|builder| builder.read_timeout(Duration::from_secs(5)));
    let (mut on_a, mut on_b) = (test.conn("a"), test.conn("b"));
    for i in 0..3 {
        write(&mut on_b, &i.to_string());
    }
    test.sync();
    let before = test.litefs("b").position().unwrap();
    // The watermark of b contains acknowledged writes that its new history does not.
    test.cluster.promote_losing_tail("b", 2).unwrap();
    test.wait_for_roles();
    let started = Instant::now();
    assert_eq!(count(&mut on_b), 1);
    write(&mut on_b, "new");
    test.sync();
    // Promote a again: its file went back too, and it becomes a replica whose watermark is older
    // than both.
    assert_eq!(count(&mut on_a), 2);
    write(&mut on_a, "newer");
    assert_eq!(count(&mut on_a), 3);
    test.cluster.promote("a").unwrap();
    test.wait_for_roles();
    write(&mut on_b, "newest");
    assert_eq!(count(&mut on_b), 4);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let after = test.litefs("b").position().unwrap();
    assert_ne!(before.checksum, after.checksum);
}

#[test]
fn r7_a_wait_for_a_lost_write_ends_with_a_new_primary() {
    let test = TestCluster::configured(&["a", "b", "c"], |_, builder| {
        builder.read_timeout(Duration::from_secs(8))
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("c");
    test.cluster.node("c").stall_replication().unwrap();
    for _ in 0..3 {
        write(&mut conn, "lost");
    }
    std::thread::scope(|scope| {
        let started = Instant::now();
        let read = scope.spawn(|| count(&mut conn));
        test.cluster.promote_losing_tail("b", 3).unwrap();
        test.cluster.node("c").resume_replication().unwrap();
        assert_eq!(read.join().unwrap(), 0, "the writes are lost in every history");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    });
}

#[test]
fn reads_work_while_no_primary_is_known() {
    let test = test_cluster(|builder| builder);
    write(&mut test.conn("a"), "x");
    test.sync();
    test.cluster.lose_primary().unwrap();
    wait_until("no primary", || test.litefs("b").role() == Role::Unknown);
    assert_eq!(count(&mut test.conn("b")), 1);
}
