//! Errors: kind and message are SQLite's, wherever the statement ran, and the connection stays
//! usable.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer};

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, User, everybody, posts, users};

/// The statement fails with this error and changes nothing, and the next statement succeeds.
#[track_caller]
fn fails(statement: &str, kind: &str, message: &str) {
    let conn = &mut *fresh_with(FULL_BLOG);
    for _ in 0..2 {
        let (actual_kind, actual_message) = refused(sql_query(statement).execute(conn));
        assert_eq!((actual_kind, actual_message.as_str()), (kind, message));
    }
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
    assert_eq!(diesel::delete(posts::table).execute(conn), Ok(3));
}

#[test]
fn a_unique_constraint() {
    fails(
        "INSERT INTO users (name) VALUES ('Sean')",
        "unique",
        "UNIQUE constraint failed: users.name",
    );
    fails("UPDATE users SET name = 'x'", "unique", "UNIQUE constraint failed: users.name");
}

#[test]
fn a_primary_key() {
    fails(
        "INSERT INTO users (id, name) VALUES (1, 'x')",
        "unique",
        "UNIQUE constraint failed: users.id",
    );
}

#[test]
fn a_foreign_key() {
    fails(
        "INSERT INTO posts (user_id, title) VALUES (99, 'x')",
        "foreign key",
        "FOREIGN KEY constraint failed",
    );
    fails("DELETE FROM users WHERE id = 1", "foreign key", "FOREIGN KEY constraint failed");
    fails("UPDATE users SET id = 9 WHERE id = 2", "foreign key", "FOREIGN KEY constraint failed");
}

#[test]
fn a_not_null_constraint() {
    fails(
        "INSERT INTO users (age) VALUES (1)",
        "not null",
        "NOT NULL constraint failed: users.name",
    );
    fails("UPDATE users SET name = NULL", "not null", "NOT NULL constraint failed: users.name");
}

#[test]
fn a_check_constraint() {
    fails("UPDATE posts SET votes = -1", "check", "CHECK constraint failed: votes >= 0");
}

#[test]
fn a_type_mismatch() {
    fails("INSERT INTO users (id, name) VALUES ('x', 'x')", "unknown", "datatype mismatch");
}

#[test]
fn a_syntax_error() {
    fails("INSERT INTO users (name VALUES ('x')", "unknown", "near \"VALUES\": syntax error");
    fails("gibberish", "unknown", "near \"gibberish\": syntax error");
    fails("UPDATE users SET", "unknown", "incomplete input");
    fails("INSERT INTO users (name) VALUES ('x", "unknown", "unrecognized token: \"'x\"");
}

#[test]
fn a_missing_table() {
    fails("INSERT INTO nowhere VALUES (1)", "unknown", "no such table: nowhere");
    fails("SELECT * FROM nowhere", "unknown", "no such table: nowhere");
    fails("DROP TABLE nowhere", "unknown", "no such table: nowhere");
}

#[test]
fn a_missing_column() {
    fails("UPDATE users SET absent = 1", "unknown", "no such column: absent");
    fails("SELECT absent FROM users", "unknown", "no such column: absent");
    fails(
        "INSERT INTO users (absent) VALUES (1)",
        "unknown",
        "table users has no column named absent",
    );
}

#[test]
fn a_missing_function() {
    fails("UPDATE users SET name = absent(name)", "unknown", "no such function: absent");
}

#[test]
fn a_wrong_number_of_values() {
    fails(
        "INSERT INTO users VALUES (1)",
        "unknown",
        "table users has 4 columns but 1 values were supplied",
    );
    fails("INSERT INTO users (id, name) VALUES (1)", "unknown", "1 values for 2 columns");
}

#[test]
fn a_table_that_is_there_already() {
    fails("CREATE TABLE users (x)", "unknown", "table users already exists");
    fails("CREATE INDEX i ON users (absent)", "unknown", "no such column: absent");
}

#[test]
fn an_integer_overflow() {
    fails("UPDATE users SET age = abs(-9223372036854775807 - 1)", "unknown", "integer overflow");
}

#[test]
fn too_many_variables() {
    let conn = &mut *fresh_with(FULL_BLOG);
    // SQLite allows 32,766.
    let ids: Vec<i32> = (0..40_000).collect();
    let read = users::table.filter(users::id.eq_any(&ids)).count().get_result::<i64>(conn);
    let (kind, message) = refused(read);
    assert_eq!((kind, message.as_str()), ("unknown", "too many SQL variables"));
    let written = diesel::delete(posts::table.filter(posts::id.eq_any(&ids))).execute(conn);
    assert_eq!(refused(written), (kind, message));
    assert_eq!(posts::table.count().get_result::<i64>(conn), Ok(3));
}

#[test]
fn as_many_variables_as_sqlite_allows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let ids: Vec<i32> = (1..=32_766).collect();
    assert_eq!(diesel::delete(posts::table.filter(posts::id.eq_any(&ids))).execute(conn), Ok(3));
}

#[test]
fn an_empty_query() {
    let conn = &mut *fresh_with(FULL_BLOG);
    for nothing in ["", "  \n", "-- nothing", ";"] {
        let error = sql_query(nothing).execute(conn).unwrap_err();
        assert!(matches!(error, Error::QueryBuilderError(_)), "{nothing:?}: {error:?}");
        assert!(error.to_string().starts_with("Detected an empty query"), "{error}");
    }
}

#[test]
fn a_nul_character_in_the_query() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let read = sql_query("SELECT 1 \0 + 1").execute(conn).unwrap_err();
    assert_eq!(read.to_string(), "nul byte found in provided data at position: 9");
    let written = sql_query("DELETE FROM posts \0 WHERE 0").execute(conn).unwrap_err();
    assert_eq!(written.to_string(), "nul byte found in provided data at position: 18");
    assert!(matches!(written, Error::InvalidCString(_)), "{written:?}");
    let script = conn.batch_execute("DELETE FROM posts \0 WHERE 0").unwrap_err();
    assert!(matches!(script, Error::InvalidCString(_)), "{script:?}");
    assert_eq!(posts::table.count().get_result::<i64>(conn), Ok(3));
}

fn returning(conn: &mut Conn, statement: &str) -> (&'static str, String) {
    refused(sql::<Integer>(statement).load::<i32>(conn))
}

#[test]
fn errors_of_statements_that_return_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let taken = returning(conn, "INSERT INTO users (name) VALUES ('Sean') RETURNING id");
    assert_eq!(taken, ("unique", "UNIQUE constraint failed: users.name".to_owned()));
    let orphan =
        returning(conn, "INSERT INTO posts (user_id, title) VALUES (99, 'x') RETURNING id");
    assert_eq!(orphan, ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    let missing = returning(conn, "INSERT INTO nowhere VALUES (1) RETURNING id");
    assert_eq!(missing, ("unknown", "no such table: nowhere".to_owned()));
    let check = returning(conn, "UPDATE posts SET votes = -votes RETURNING id");
    assert_eq!(check, ("check", "CHECK constraint failed: votes >= 0".to_owned()));
    assert_eq!(sql::<BigInt>("SELECT sum(votes) FROM posts").get_result::<i64>(conn), Ok(9));
}

#[test]
fn conflict_clauses_determine_which_rows_stay() {
    let conn = &mut *fresh_with("CREATE TABLE t (x INTEGER UNIQUE); INSERT INTO t VALUES (2)");
    let xs =
        |conn: &mut Conn| sql::<Integer>("SELECT x FROM t ORDER BY x").load::<i32>(conn).unwrap();
    let taken = ("unique", "UNIQUE constraint failed: t.x".to_owned());
    assert_eq!(
        refused(sql_query("INSERT OR ABORT INTO t VALUES (1), (2), (3)").execute(conn)),
        taken
    );
    assert_eq!(xs(conn), [2]);
    assert_eq!(
        refused(sql_query("INSERT OR ROLLBACK INTO t VALUES (1), (2), (3)").execute(conn)),
        taken
    );
    assert_eq!(xs(conn), [2]);
    // FAIL keeps the rows before the conflict.
    assert_eq!(
        refused(sql_query("INSERT OR FAIL INTO t VALUES (1), (2), (3)").execute(conn)),
        taken
    );
    assert_eq!(xs(conn), [1, 2]);
    assert_eq!(sql_query("INSERT OR IGNORE INTO t VALUES (1), (2), (3)").execute(conn), Ok(1));
    assert_eq!(sql_query("INSERT OR REPLACE INTO t VALUES (1), (2)").execute(conn), Ok(2));
    assert_eq!(xs(conn), [1, 2, 3]);
}
