//! The operations that a replica refuses to SQLite, and their error codes.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use litefs_testkit::{Cluster, Node};

use crate::support::{
    DB, LIMIT, cluster, connect, connect_to, count, insert, number, try_number, word,
};

const WRITE: i32 = 778;
const READONLY_DIRECTORY: i32 = 1544;

/// Runs a statement that must be refused and returns the code.
fn refused(node: &Node, conn: &mut SqliteConnection, sql: &str) -> i32 {
    node.take_refusal().expect("reset");
    let error = conn.batch_execute(sql).expect_err(sql).to_string();
    let code = node.take_refusal().expect("code");
    let message =
        if code == WRITE { "disk I/O error" } else { "attempt to write a readonly database" };
    assert_eq!(error, message, "{sql}");
    code
}

#[test]
fn a_wal_database_refuses_writes_at_the_commit() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    let mut conn = connect(node);
    for sql in [
        "INSERT INTO item (name) VALUES ('x')",
        "CREATE TABLE t (x)",
        "PRAGMA user_version = 9",
        "VACUUM",
    ] {
        assert_eq!(refused(node, &mut conn, sql), WRITE, "{sql}");
    }
    conn.batch_execute("BEGIN IMMEDIATE; INSERT INTO item (name) VALUES ('x')")
        .expect("seems to work");
    assert_eq!(number(&mut conn, "SELECT count(*) FROM item"), 1, "the phantom row");
    assert_eq!(refused(node, &mut conn, "COMMIT"), WRITE);
    let error = conn.batch_execute("ROLLBACK").expect_err("rolled back already");
    assert_eq!(error.to_string(), "cannot rollback - no transaction is active");
    conn.batch_execute("BEGIN EXCLUSIVE; UPDATE item SET name = 'x' WHERE id = -1; COMMIT")
        .expect("no row");
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn returning_gives_a_phantom_id_inside_a_transaction() {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        id: i64,
    }
    let cluster = cluster(&["a", "b"]);
    let mut conn = connect(cluster.node("b"));
    conn.batch_execute("BEGIN").expect("begin");
    let row: Row = sql_query("INSERT INTO item (name) VALUES ('x') RETURNING id")
        .get_result(&mut conn)
        .expect("a row");
    assert_eq!(row.id, 1);
    assert_eq!(refused(cluster.node("b"), &mut conn, "COMMIT"), WRITE);
}

#[test]
fn writes_to_other_databases_work_on_a_replica() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    let mut conn = connect(node);
    let copy = tempfile::tempdir().expect("directory");
    let copy = copy.path().join("copy.db");
    conn.batch_execute("CREATE TEMP TABLE t (x); INSERT INTO t VALUES (1)")
        .expect("temporary table");
    conn.batch_execute(
        "PRAGMA temp_store = FILE; CREATE TEMP TABLE u AS SELECT hex(randomblob(100000))",
    )
    .expect("on disk");
    conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    conn.batch_execute("PRAGMA journal_mode = wal").expect("as it is");
    assert_eq!(word(&mut conn, "integrity_check AS word FROM pragma_integrity_check"), "ok");
    conn.batch_execute(&format!("VACUUM INTO 'file:{}?vfs=unix'", copy.display()))
        .expect("vacuum into");
    assert!(copy.exists());
}

#[test]
fn a_replica_cannot_leave_wal_mode() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    let mut conn = connect(node);
    assert_eq!(refused(node, &mut conn, "PRAGMA journal_mode = delete"), READONLY_DIRECTORY);
}

#[test]
fn a_rollback_journal_database_refuses_writes_at_once() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    connect_to(cluster.node("a"), "other.db").batch_execute("CREATE TABLE t (x)").expect("table");
    cluster.wait_for_sync(LIMIT).expect("sync");
    let mut conn = connect_to(node, "other.db");
    for sql in [
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE u (x)",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = wal",
    ] {
        assert_eq!(refused(node, &mut conn, sql), READONLY_DIRECTORY, "{sql}");
    }
    conn.batch_execute("BEGIN IMMEDIATE").expect("begin");
    assert_eq!(refused(node, &mut conn, "INSERT INTO t VALUES (1)"), READONLY_DIRECTORY);
    conn.batch_execute("COMMIT").expect("the transaction stayed open and is empty");
    conn.batch_execute("PRAGMA journal_mode = truncate").expect("only a setting");
    assert_eq!(number(&mut conn, "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_replica_cannot_create_a_database() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    let mut conn = connect_to(node, "new.db");
    assert_eq!(refused(node, &mut conn, "CREATE TABLE t (x)"), READONLY_DIRECTORY);
}

#[test]
fn a_connection_opened_read_only_is_refused_by_sqlite_itself() {
    let cluster = cluster(&["a"]);
    let url = format!("{}&mode=ro", cluster.node("a").database_url(DB));
    let mut conn = SqliteConnection::establish(&url).expect("connection");
    let error = conn.batch_execute("INSERT INTO item (name) VALUES ('x')").expect_err("read only");
    assert_eq!(error.to_string(), "attempt to write a readonly database");
    assert_eq!(cluster.node("a").take_refusal().expect("code"), 0, "the VFS was not asked");
}

#[test]
fn exclusive_locking_mode_is_refused_on_the_primary() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let mut conn = connect(node);
    conn.batch_execute("PRAGMA locking_mode = EXCLUSIVE").expect("a setting");
    assert_eq!(refused(node, &mut conn, "INSERT INTO item (name) VALUES ('x')"), WRITE);
}

#[test]
fn leaving_wal_mode_on_the_primary_kills_replicas_for_good() {
    let cluster: Cluster = cluster(&["a", "b"]);
    connect(cluster.node("a"))
        .batch_execute("PRAGMA journal_mode = delete")
        .expect("the primary works");
    cluster.node("b").wait_until(LIMIT, |status| !status.alive).expect("dead replica");
    assert!(matches!(cluster.restart("b"), Err(litefs_testkit::Error::Corrupt(_))));
    assert!(insert(&mut connect(cluster.node("a")), "x").is_ok());
}

#[test]
fn a_page_size_cannot_change() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let mut conn = connect_to(node, "other.db");
    conn.batch_execute("CREATE TABLE t (x)").expect("table");
    assert_eq!(refused(node, &mut conn, "PRAGMA page_size = 8192; VACUUM"), WRITE);
    assert_eq!(try_number(&mut conn, "SELECT count(*) FROM t"), Ok(0));
}
