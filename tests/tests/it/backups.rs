//! VACUUM INTO on a node that replicates: the content of the copy.

use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::TestCluster;
use tempfile::TempDir;

fn test_cluster() -> TestCluster {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.read_timeout(Duration::from_millis(500))
    });
    test.schema("CREATE TABLE notes (id INTEGER PRIMARY KEY)");
    test
}

fn write(conn: &mut LiteFsConnection) {
    sql_query("INSERT INTO notes DEFAULT VALUES").execute(conn).unwrap();
}

/// VACUUM INTO a file in `directory`. The cluster's VFS holds only the cluster's files.
fn copy(conn: &mut LiteFsConnection, directory: &TempDir, name: &str) -> QueryResult<()> {
    conn.batch_execute(&format!(
        "VACUUM INTO 'file:{}?vfs=unix'",
        directory.path().join(name).display()
    ))
}

fn notes_in(directory: &TempDir, name: &str) -> i64 {
    let path = directory.path().join(name);
    let mut copy = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    sql::<BigInt>("SELECT count(*) FROM notes").get_result(&mut copy).unwrap()
}

#[test]
fn a_copy_has_the_writes_of_this_process() {
    let (test, directory) = (test_cluster(), tempfile::tempdir().unwrap());
    let mut conn = test.conn("b");
    test.cluster.node("b").set_replication_delay(Duration::from_millis(50)).unwrap();
    write(&mut conn);
    copy(&mut conn, &directory, "copy").unwrap();
    assert_eq!(notes_in(&directory, "copy"), 1);
    assert_eq!(test.litefs("b").round_trips(), 1, "the copy was made on the replica");
    // The replica still replicates and writes.
    write(&mut conn);
    test.sync();
    let refused = sql_query("INSERT INTO notes DEFAULT VALUES");
    conn.on_local(|conn| refused.execute(conn)).unwrap_err();
}

#[test]
fn on_primary_a_copy_has_the_writes_of_all_nodes() {
    let (test, directory) = (test_cluster(), tempfile::tempdir().unwrap());
    let mut conn = test.conn("b");
    for (round, name) in ["one", "two", "three"].into_iter().enumerate() {
        test.cluster.node("b").set_replication_delay(Duration::from_millis(50)).unwrap();
        write(&mut test.conn("a"));
        conn.on_primary(|conn| copy(conn, &directory, name)).unwrap();
        assert_eq!(notes_in(&directory, name), i64::try_from(round).unwrap() + 1);
    }
    test.conn("a").on_primary(|conn| copy(conn, &directory, "primary")).unwrap();
    assert_eq!(notes_in(&directory, "primary"), 3);
}

#[test]
fn a_node_that_is_behind_refuses_a_copy() {
    let (test, directory) = (test_cluster(), tempfile::tempdir().unwrap());
    let mut conn = test.conn("b");
    test.cluster.node("b").stall_replication().unwrap();
    write(&mut conn);
    for on_primary in [false, true] {
        let result = match on_primary {
            false => copy(&mut conn, &directory, "never"),
            true => conn.on_primary(|conn| copy(conn, &directory, "never")),
        };
        let error = result.unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::Behind), "{error}");
    }
    assert!(!directory.path().join("never").exists());
    conn.on_local(|conn| copy(conn, &directory, "stale")).unwrap();
    assert_eq!(notes_in(&directory, "stale"), 0);
    test.cluster.node("b").resume_replication().unwrap();
    copy(&mut conn, &directory, "copy").unwrap();
    assert_eq!(notes_in(&directory, "copy"), 1);
}
