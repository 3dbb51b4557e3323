//! What counts as a transaction, and when it becomes visible.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use litefs_testkit::{Cluster, Position};

use crate::support::{
    DB, LIMIT, cluster, connect, connect_to, count, insert, number, special, word,
};

#[test]
fn every_committed_transaction_is_one_step_of_the_txid() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("a");
    let mut conn = connect(node);
    let before = node.position(DB).txid;
    for round in 1..=300 {
        insert(&mut conn, "row").expect("insert");
        assert_eq!(node.position(DB).txid, before + round);
    }
    conn.batch_execute(
        "BEGIN; INSERT INTO item (name) VALUES ('x'); INSERT INTO item (name) VALUES ('y'); COMMIT",
    )
    .expect("two rows");
    conn.batch_execute("CREATE INDEX item_name ON item (name)").expect("DDL");
    conn.batch_execute("PRAGMA user_version = 7").expect("header");
    conn.batch_execute("VACUUM").expect("vacuum");
    assert_eq!(node.position(DB).txid, before + 304);
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(node.position(DB), cluster.node("b").position(DB));
}

#[test]
fn a_commit_without_changes_is_not_a_transaction() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let mut conn = connect(node);
    let before = node.position(DB);
    conn.batch_execute("BEGIN; INSERT INTO item (name) VALUES ('x'); ROLLBACK").expect("rollback");
    conn.batch_execute("UPDATE item SET name = 'x' WHERE id = -1").expect("no row");
    conn.batch_execute("BEGIN IMMEDIATE; COMMIT").expect("nothing inside");
    conn.batch_execute("PRAGMA cache_size = 5; BEGIN").expect("small cache");
    conn.batch_execute(&spill("item (name)")).expect("spills into the WAL");
    conn.batch_execute("ROLLBACK").expect("rollback after a spill");
    assert_eq!((node.position(DB), count(&mut conn)), (before, 0));
    insert(&mut conn, "after").expect("the frames of the rollback are overwritten");
    assert_eq!((node.position(DB).txid, count(&mut conn)), (before.txid + 1, 1));
}

/// More rows than a small cache holds.
fn spill(into: &str) -> String {
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                   WHERE i < 500) SELECT i FROM n";
    format!("INSERT INTO {into} SELECT hex(randomblob(500)) FROM ({numbers})")
}

#[test]
fn the_position_file_is_up_to_date_when_commit_returns() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let kept = File::open(node.dir().join("app.db-pos")).expect("-pos");
    let mut conn = connect(node);
    let before = node.position(DB).txid;
    for round in 1..=300 {
        insert(&mut conn, "row").expect("insert");
        let mut text = [0; 34];
        assert_eq!(kept.read_at(&mut text, 0).expect("read"), 34);
        let shown: Position = std::str::from_utf8(&text).expect("ASCII").parse().expect("position");
        assert_eq!((shown.txid, shown), (before + round, node.position(DB)));
    }
}

#[test]
fn wal_restarts_and_checkpoints_lose_nothing() {
    let cluster = cluster(&["a", "b"]);
    let mut conn = connect(cluster.node("a"));
    let before = cluster.node("a").position(DB).txid;
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        insert(&mut conn, mode).expect("insert");
        conn.batch_execute(&format!("PRAGMA wal_checkpoint({mode})")).expect("checkpoint");
        insert(&mut conn, mode).expect("insert");
    }
    drop(conn);
    let mut conn = connect(cluster.node("a"));
    insert(&mut conn, "a new WAL").expect("insert");
    assert_eq!(cluster.node("a").position(DB).txid, before + 9);
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(count(&mut connect(cluster.node("b"))), 9);
}

#[test]
fn the_database_files_are_equal_after_a_checkpoint() {
    let cluster = cluster(&["a", "b"]);
    let mut conn = connect(cluster.node("a"));
    conn.batch_execute(&spill("item (name)")).expect("many pages");
    conn.batch_execute("DELETE FROM item WHERE id % 3 = 0; VACUUM").expect("fewer pages");
    cluster.wait_for_sync(LIMIT).expect("sync");
    conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    let read = |name| fs::read(cluster.node(name).database_path(DB)).expect("file");
    assert!(read("a") == read("b"), "other bytes");
}

#[test]
fn a_new_databases_switch_to_wal_is_one_transaction() {
    let cluster = cluster(&["a", "b"]);
    let (primary, replica) = (cluster.node("a"), cluster.node("b"));
    let mut conn = connect_to(primary, "other.db");
    assert_eq!(word(&mut conn, "journal_mode AS word FROM pragma_journal_mode"), "delete");
    conn.batch_execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("two transactions");
    assert_eq!(primary.position("other.db").txid, 2);
    cluster.wait_for_sync(LIMIT).expect("sync");
    let mut reader = connect_to(replica, "other.db");
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), 1);
    conn.batch_execute("PRAGMA journal_mode = wal").expect("switch");
    assert_eq!(primary.position("other.db").txid, 3);
    conn.batch_execute("INSERT INTO t VALUES (2)").expect("in WAL mode");
    assert_eq!(primary.position("other.db").txid, 4);
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), 2);
    assert_eq!(word(&mut reader, "journal_mode AS word FROM pragma_journal_mode"), "wal");
}

#[test]
fn rollback_journals_of_every_kind_are_captured() {
    let cluster = cluster(&["a", "b"]);
    let primary = cluster.node("a");
    let mut conn = connect_to(primary, "other.db");
    conn.batch_execute("CREATE TABLE t (x)").expect("table");
    for (round, mode) in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"].into_iter().enumerate() {
        let before = primary.position("other.db").txid;
        conn.batch_execute(&format!("PRAGMA journal_mode = {mode}")).expect(mode);
        conn.batch_execute("BEGIN; INSERT INTO t VALUES (0); ROLLBACK").expect("rollback");
        conn.batch_execute(&format!("PRAGMA cache_size = 2; BEGIN; {}", spill("t (x)")))
            .expect("into the file");
        conn.batch_execute("ROLLBACK").expect("rollback of what was written already");
        conn.batch_execute("INSERT INTO t VALUES (1)").expect("insert");
        conn.batch_execute("UPDATE t SET x = 2 WHERE x = 9").expect("nothing");
        assert_eq!(primary.position("other.db").txid, before + 1, "{mode}");
        cluster.wait_for_sync(LIMIT).expect("sync");
        let mut reader = connect_to(cluster.node("b"), "other.db");
        assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), round as i64 + 1, "{mode}");
    }
}

#[test]
fn a_dropped_commit_returns_ok_and_leaves_a_dead_node() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("a");
    let mut conn = connect(node);
    insert(&mut conn, "kept").expect("insert");
    let before = node.position(DB);
    node.drop_next_commit().expect("fault");
    assert_eq!(insert(&mut conn, "lost"), Ok(1), "SQLite ignores errors of the unlock");
    assert!(!node.is_alive());
    assert_eq!((special(node, "app.db-pos"), special(node, ".lag")), (None, None));
    assert_eq!(node.position(DB), before);
    insert(&mut conn, "after").expect_err("the mount is dead");
    assert!(
        diesel::Connection::establish(&node.database_url(DB))
            .map(|_: diesel::SqliteConnection| ())
            .is_err()
    );
    node.restart().expect("restart");
    cluster.promote("a").expect("primary again");
    assert_eq!(
        (count(&mut connect(node)), node.position(DB)),
        (1, before),
        "the tail of the WAL was cut"
    );
}

#[test]
fn a_commit_delay_slows_the_commit_and_not_the_readers() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let delay = Duration::from_millis(150);
    node.set_commit_delay(delay).expect("fault");
    let mut reader = connect(node);
    let (mut conn, before) = (connect(node), node.position(DB));
    std::thread::scope(|scope| {
        let began = Instant::now();
        let writer = scope.spawn(move || insert(&mut conn, "slow").map(|_| began.elapsed()));
        count(&mut reader);
        assert!(began.elapsed() < delay && node.position(DB) == before);
        assert!(writer.join().expect("writer").expect("insert") >= delay);
    });
    assert_eq!(node.position(DB).txid, before.txid + 1);
}

#[test]
fn a_sqlite_without_the_vfs_finds_the_database_locked() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let cluster: Cluster = cluster(&["a"]);
    let path = cluster.node("a").database_path(DB);
    let mut foreign: diesel::SqliteConnection =
        diesel::Connection::establish(path.to_str().expect("UTF-8")).expect("open");
    let error = foreign.batch_execute("SELECT count(*) FROM item").expect_err("locked");
    assert_eq!(error.to_string(), "database is locked");
}
