//! VACUUM INTO: a copy of the database to a file of this node.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::SqliteConnection;
use tempfile::TempDir;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::FULL_BLOG;

/// The target of VACUUM INTO, a file in `directory`, through SQLite's own VFS: the cluster's VFS
/// holds only the cluster's files.
fn target(directory: &TempDir, name: &str) -> String {
    format!("file:{}?vfs=unix", directory.path().join(name).display())
}

/// The users in a copy.
fn users_in(directory: &TempDir, name: &str) -> i64 {
    let path = directory.path().join(name);
    let mut copy = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    sql::<BigInt>("SELECT count(*) FROM users").get_result(&mut copy).unwrap()
}

#[test]
fn are_made_by_vacuum_into() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    let add = |conn: &mut Conn, name: &str| {
        sql_query(format!("INSERT INTO users (name) VALUES ('{name}')")).execute(conn).unwrap();
    };
    add(conn, "a");
    conn.batch_execute(&format!("VACUUM INTO '{}'", target(&directory, "script"))).unwrap();
    assert_eq!(users_in(&directory, "script"), 4);
    add(conn, "b");
    let statement = format!("VACUUM main INTO '{}'", target(&directory, "statement"));
    sql_query(statement).execute(conn).unwrap();
    assert_eq!(users_in(&directory, "statement"), 5);
    add(conn, "c");
    let bound = sql_query("VACUUM INTO ?").bind::<Text, _>(target(&directory, "bound"));
    bound.execute(conn).unwrap();
    assert_eq!(users_in(&directory, "bound"), 6);
    // The connection can still write.
    add(conn, "d");
    assert_eq!(sql::<BigInt>("SELECT count(*) FROM users").get_result::<i64>(conn), Ok(7));
}

#[test]
fn of_an_attached_database() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(&format!("ATTACH '{}' AS aux", target(&directory, "aux"))).unwrap();
    conn.batch_execute("CREATE TABLE aux.users (x); INSERT INTO aux.users VALUES (1)").unwrap();
    conn.batch_execute(&format!("VACUUM aux INTO '{}'", target(&directory, "copy"))).unwrap();
    assert_eq!(users_in(&directory, "copy"), 1);
}

#[test]
fn are_refused_within_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    for first in ["SELECT 1", "SELECT * FROM users", "UPDATE users SET age = 1"] {
        let statement = format!("VACUUM INTO '{}'", target(&directory, "never"));
        let result = conn.transaction(|conn| {
            sql_query(first).execute(conn)?;
            conn.batch_execute(&statement)
        });
        let message = "cannot VACUUM from within a transaction".to_owned();
        assert_eq!(refused(result), ("unknown", message), "{first}");
    }
    assert!(!directory.path().join("never").exists());
}

#[test]
fn do_not_overwrite_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    let statement = format!("VACUUM INTO '{}'", target(&directory, "copy"));
    conn.batch_execute(&statement).unwrap();
    let again = conn.batch_execute(&statement);
    assert_eq!(refused(again), ("unknown", "output file already exists".to_owned()));
}

#[test]
fn follow_the_users_query_only() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("PRAGMA query_only = ON").unwrap();
    let copied = conn.batch_execute(&format!("VACUUM INTO '{}'", target(&directory, "copy")));
    assert_eq!(refused(copied), ("unknown", "attempt to write a readonly database".to_owned()));
}
