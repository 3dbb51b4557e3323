//! Statements about an attached database and about the temporary schema.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use tempfile::TempDir;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::FULL_BLOG;

/// ATTACH of a file in `directory`, through SQLite's own VFS: the cluster's VFS holds only the
/// cluster's files.
fn attach(directory: &TempDir) -> String {
    format!("ATTACH 'file:{}?vfs=unix' AS aux", directory.path().join("aux.db").display())
}

fn integer(conn: &mut Conn, query: &str) -> i32 {
    sql::<Integer>(query).get_result(conn).unwrap()
}

fn text(conn: &mut Conn, query: &str) -> String {
    sql::<Text>(query).get_result(conn).unwrap()
}

#[test]
fn pragmas_of_an_attached_database() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(&attach(&directory)).unwrap();
    sql_query("PRAGMA [aux].auto_vacuum = FULL").execute(conn).unwrap();
    assert_eq!(text(conn, "PRAGMA aux.journal_mode = WAL"), "wal");
    conn.batch_execute("PRAGMA aux.user_version = 3; PRAGMA \"AUX\".application_id = 4").unwrap();
    assert_eq!(integer(conn, "PRAGMA aux.user_version"), 3);
    assert_eq!(integer(conn, "PRAGMA aux.application_id"), 4);
    assert_eq!(integer(conn, "PRAGMA user_version"), 0);
    assert_eq!(integer(conn, "PRAGMA main.application_id"), 0);
    assert_eq!(integer(conn, "PRAGMA aux.auto_vacuum"), 1);
    assert_eq!(integer(conn, "PRAGMA main.auto_vacuum"), 0);
    conn.batch_execute("CREATE TABLE aux.t (x); INSERT INTO aux.t VALUES (1), (2)").unwrap();
    conn.batch_execute("PRAGMA aux.optimize; PRAGMA aux.incremental_vacuum").unwrap();
    assert_eq!(text(conn, "PRAGMA aux.integrity_check"), "ok");
    assert_eq!(text(conn, "PRAGMA aux.quick_check('t')"), "ok");
}

#[test]
fn pragmas_of_the_temporary_schema() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("CREATE TEMP TABLE t (x); PRAGMA temp.user_version = 5").unwrap();
    assert_eq!(integer(conn, "PRAGMA temp.user_version"), 5);
    assert_eq!(integer(conn, "PRAGMA user_version"), 0);
    assert_eq!(text(conn, "PRAGMA temp.integrity_check"), "ok");
}

#[test]
fn maintenance_of_an_attached_database() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(&attach(&directory)).unwrap();
    conn.batch_execute(
        "CREATE TABLE aux.t (x, y); CREATE INDEX aux.t_x ON t (x);
         INSERT INTO aux.t VALUES (1, randomblob(50000)), (2, randomblob(50000)); \
         DELETE FROM aux.t WHERE x = 1",
    )
    .unwrap();
    let before = integer(conn, "PRAGMA aux.page_count");
    conn.batch_execute("VACUUM aux").unwrap();
    assert!(integer(conn, "PRAGMA aux.page_count") < before);
    for statement in
        ["REINDEX aux.t", "REINDEX aux.t_x", "ANALYZE aux", "ANALYZE aux.t", "VACUUM temp"]
    {
        sql_query(statement).execute(conn).unwrap();
    }
    assert_eq!(integer(conn, "SELECT count(*) FROM aux.sqlite_stat1"), 1);
    let none = sql::<Integer>("SELECT count(*) FROM main.sqlite_stat1").get_result::<i32>(conn);
    assert_eq!(refused(none), ("unknown", "no such table: main.sqlite_stat1".to_owned()));
    assert_eq!(sql_query("UPDATE users SET age = 1").execute(conn), Ok(3));
}

#[test]
fn a_script_that_attaches_fills_and_detaches() {
    let directory = tempfile::tempdir().unwrap();
    let conn = &mut *fresh_with(FULL_BLOG);
    let script = "CREATE TABLE aux.names (name TEXT);
         CREATE INDEX aux.by_name ON names (name);
         INSERT INTO aux.names SELECT name FROM users;
         UPDATE OR IGNORE aux.names SET name = upper(name);
         DELETE FROM aux.names WHERE name = 'ADA';
         ALTER TABLE aux.names ADD COLUMN age;
         ANALYZE aux.names; REINDEX aux.names; PRAGMA aux.user_version = 7;
         DETACH aux";
    conn.batch_execute(&format!("{}; {script}", attach(&directory))).unwrap();
    conn.batch_execute(&attach(&directory)).unwrap();
    let names = sql::<Text>("SELECT name FROM aux.names ORDER BY name").load::<String>(conn);
    assert_eq!(names, Ok(vec!["SEAN".to_owned(), "TESS".to_owned()]));
    assert_eq!(integer(conn, "PRAGMA aux.user_version"), 7);
}

#[test]
fn schemas_that_are_not_attached_are_unknown() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let unknown = |result: QueryResult<usize>| refused(result).1;
    assert_eq!(
        unknown(sql_query("PRAGMA nope.user_version = 1").execute(conn)),
        "unknown database nope"
    );
    assert_eq!(unknown(sql_query("VACUUM nope").execute(conn)), "unknown database nope");
    let insert = sql_query("INSERT INTO nope.t VALUES (1)").execute(conn);
    assert_eq!(unknown(insert), "no such table: nope.t");
}
