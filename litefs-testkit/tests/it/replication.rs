//! Replication from the primary to its replicas.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;

use crate::support::{
    DB, LIMIT, cluster, connect, count, eventually, insert, insert_rows, number, special,
};

/// Longer than replication that is not held back takes: a millisecond or two.
const WHILE: Duration = Duration::from_millis(150);

#[test]
fn an_open_connection_on_the_replica_sees_new_rows() {
    let cluster = cluster(&["a", "b"]);
    let mut primary = connect(cluster.node("a"));
    let mut replica = connect(cluster.node("b"));
    for round in 0..20 {
        assert_eq!(count(&mut replica), round);
        let version = number(&mut replica, "SELECT data_version FROM pragma_data_version");
        insert(&mut primary, "row").expect("insert");
        cluster.wait_for_sync(LIMIT).expect("sync");
        assert_ne!(number(&mut replica, "SELECT data_version FROM pragma_data_version"), version);
    }
    assert_eq!(cluster.node("a").position(DB), cluster.node("b").position(DB));
    assert_eq!(special(cluster.node("a"), "app.db-pos"), special(cluster.node("b"), "app.db-pos"));
}

#[test]
fn an_open_read_transaction_blocks_replication() {
    let cluster = cluster(&["a", "b"]);
    let (mut primary, mut replica) = (connect(cluster.node("a")), connect(cluster.node("b")));
    replica.batch_execute("BEGIN; SELECT count(*) FROM item").expect("open");
    insert(&mut primary, "row").expect("insert");
    assert!(cluster.wait_for_sync(WHILE).is_err());
    assert_eq!(count(&mut replica), 0);
    replica.batch_execute("COMMIT").expect("close");
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(count(&mut replica), 1);
}

#[test]
fn a_write_transaction_on_the_replica_blocks_replication() {
    let cluster = cluster(&["a", "b"]);
    let (mut primary, mut replica) = (connect(cluster.node("a")), connect(cluster.node("b")));
    replica.batch_execute("BEGIN IMMEDIATE").expect("open");
    insert(&mut primary, "row").expect("insert");
    assert!(cluster.wait_for_sync(WHILE).is_err());
    replica.batch_execute("ROLLBACK").expect("close");
    cluster.wait_for_sync(LIMIT).expect("sync");
}

#[test]
fn delayed_replication_arrives_late_and_in_parallel() {
    let cluster = cluster(&["a", "b"]);
    let mut primary = connect(cluster.node("a"));
    let delay = Duration::from_millis(200);
    cluster.node("b").set_replication_delay(delay).expect("fault");
    let began = Instant::now();
    insert_rows(&mut primary, 10);
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    assert!(began.elapsed() < delay * 5, "the delays added up: {:?}", began.elapsed());
}

#[test]
fn stalled_replication_resumes_where_it_stopped() {
    let cluster = cluster(&["a", "b", "c"]);
    let mut primary = connect(cluster.node("a"));
    let before = cluster.node("b").position(DB);
    cluster.node("b").stall_replication().expect("fault");
    insert_rows(&mut primary, 5);
    cluster.wait_for_sync(LIMIT).expect("the other replica is up to date");
    assert_eq!(cluster.node("b").position(DB), before);
    assert_eq!(cluster.node("c").position(DB).txid, before.txid + 5);
    cluster.node("b").resume_replication().expect("fault");
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(cluster.node("b").position(DB).txid, before.txid + 5);
}

#[test]
fn a_cut_link_shows_only_in_the_lag() {
    let cluster = cluster(&["a", "b"]);
    let replica = cluster.node("b");
    cluster.cut("a", "b").expect("cut");
    insert(&mut connect(cluster.node("a")), "row").expect("insert");
    let lag =
        || special(replica, ".lag").expect(".lag")[1..].trim_end().parse::<u64>().expect("number");
    eventually("lag above a heartbeat", || lag() > 1100);
    assert_eq!(special(replica, ".primary").as_deref(), Some("a\n"));
    assert_ne!(replica.position(DB), cluster.node("a").position(DB));
    cluster.heal("a", "b").expect("heal");
    cluster.wait_for_sync(LIMIT).expect("sync");
    eventually("lag falls", || lag() < 1000);
}

#[test]
fn a_frozen_primary_shows_only_in_the_lag() {
    let cluster = cluster(&["a", "b"]);
    let replica = cluster.node("b");
    cluster.node("a").freeze().expect("fault");
    let lag =
        || special(replica, ".lag").expect(".lag")[1..].trim_end().parse::<u64>().expect("number");
    eventually("lag above a heartbeat", || lag() > 1100);
    assert_eq!(special(replica, ".primary").as_deref(), Some("a\n"));
    cluster.node("a").thaw().expect("fault");
    eventually("lag falls", || lag() < 1000);
}

#[test]
fn a_replica_that_is_far_behind_gets_a_snapshot() {
    let cluster = cluster(&["a", "b"]);
    cluster.kill("b").expect("kill");
    let mut primary = connect(cluster.node("a"));
    cluster.kill("a").expect("kill");
    drop(primary);
    // A restarted node has no history: a replica that is behind receives a snapshot.
    cluster.node("a").restart().expect("restart");
    cluster.promote("a").expect("promote");
    primary = connect(cluster.node("a"));
    insert_rows(&mut primary, 3);
    cluster.kill("a").expect("kill");
    cluster.node("a").restart().expect("restart");
    cluster.promote("a").expect("promote");
    cluster.restart("b").expect("restart");
    assert_eq!(count(&mut connect(cluster.node("b"))), 3);
    assert_eq!(cluster.node("b").position(DB), cluster.node("a").position(DB));
}
