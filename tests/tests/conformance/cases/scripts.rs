//! Several statements in one `batch_execute`.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};

use super::{Conn, fresh, fresh_with};
use crate::refused;

const TABLE: &str = "CREATE TABLE t (x INTEGER UNIQUE)";

fn xs(conn: &mut Conn) -> Vec<i32> {
    sql::<Integer>("SELECT x FROM t ORDER BY x").load(conn).unwrap()
}

#[test]
fn run_from_the_first_statement_to_the_last() {
    let conn = &mut *fresh();
    conn.batch_execute(
        "CREATE TABLE t (x INTEGER);
         INSERT INTO t VALUES (1), (2);
         UPDATE t SET x = x + 10;
         DELETE FROM t WHERE x = 12;
         ALTER TABLE t ADD COLUMN y",
    )
    .unwrap();
    assert_eq!(xs(conn), [11]);
}

#[test]
fn keep_the_changes_before_a_failing_statement() {
    let conn = &mut *fresh_with(TABLE);
    let result = conn.batch_execute(
        "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (1); \
         INSERT INTO t VALUES (3)",
    );
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: t.x".to_owned()));
    assert_eq!(xs(conn), [1, 2]);
}

#[test]
fn stop_at_a_syntax_error() {
    let conn = &mut *fresh_with(TABLE);
    let result = conn.batch_execute("INSERT INTO t VALUES (1); nonsense; INSERT INTO t VALUES (2)");
    assert_eq!(refused(result), ("unknown", "near \"nonsense\": syntax error".to_owned()));
    assert_eq!(xs(conn), [1]);
}

#[test]
fn stop_at_a_missing_table() {
    let conn = &mut *fresh_with(TABLE);
    let result = conn.batch_execute(
        "INSERT INTO t VALUES (1); INSERT INTO nowhere VALUES (1); INSERT INTO t VALUES (2)",
    );
    assert_eq!(refused(result), ("unknown", "no such table: nowhere".to_owned()));
    assert_eq!(xs(conn), [1]);
}

#[test]
fn may_hold_a_whole_transaction() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT")
        .unwrap();
    conn.batch_execute("BEGIN; INSERT INTO t VALUES (3); ROLLBACK; INSERT INTO t VALUES (4)")
        .unwrap();
    conn.batch_execute(
        "SAVEPOINT a; INSERT INTO t VALUES (5); SAVEPOINT b; \
         INSERT INTO t VALUES (6); ROLLBACK TO b; RELEASE a",
    )
    .unwrap();
    assert_eq!(xs(conn), [1, 2, 4, 5]);
}

/// The transaction stays open, as `sqlite3_exec` leaves it, and a ROLLBACK ends it.
#[test]
fn that_fail_in_their_transaction_leave_it_open() {
    let conn = &mut *fresh_with(TABLE);
    let result =
        conn.batch_execute("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); COMMIT");
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: t.x".to_owned()));
    conn.batch_execute("ROLLBACK").unwrap();
    assert!(xs(conn).is_empty());
    assert_eq!(sql_query("INSERT INTO t VALUES (9)").execute(conn), Ok(1));
    assert_eq!(xs(conn), [9]);
}

#[test]
fn inside_a_transaction_belong_to_it() {
    let conn = &mut *fresh_with(TABLE);
    let result = conn.transaction(|conn| {
        conn.batch_execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")?;
        assert_eq!(xs(conn), [1, 2]);
        let failed = conn.batch_execute(
            "INSERT INTO t VALUES (3); INSERT INTO t VALUES (1); INSERT INTO t VALUES (4)",
        );
        assert_eq!(refused(failed).0, "unique");
        assert_eq!(xs(conn), [1, 2, 3]);
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(result, Err(diesel::result::Error::RollbackTransaction));
    assert!(xs(conn).is_empty());
}

#[test]
fn of_nothing_do_nothing() {
    let conn = &mut *fresh_with(TABLE);
    for nothing in ["", ";", " ;; -- a comment\n ; /* another */"] {
        assert_eq!(conn.batch_execute(nothing), Ok(()), "{nothing:?}");
    }
}

#[test]
fn with_triggers_comments_and_semicolons_in_strings() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute(
        "CREATE TABLE log (what TEXT); -- first; of all
         /* then; */ CREATE TRIGGER i AFTER INSERT ON t BEGIN
             INSERT INTO log VALUES ('a;b');
             INSERT INTO log SELECT CASE WHEN new.x > 1 THEN 'big' ELSE 'END;' END;
         END;
         INSERT INTO t VALUES (1);",
    )
    .unwrap();
    let log = sql::<Text>("SELECT what FROM log ORDER BY rowid").load::<String>(conn);
    assert_eq!(log, Ok(vec!["a;b".to_owned(), "END;".to_owned()]));
}

#[test]
fn that_select_throw_the_rows_away() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("SELECT * FROM t; INSERT INTO t VALUES (1) RETURNING x; SELECT 1").unwrap();
    assert_eq!(xs(conn), [1]);
}

#[test]
fn of_a_thousand_statements() {
    let conn = &mut *fresh_with(TABLE);
    let script: String = (0..1_000).map(|x| format!("INSERT INTO t VALUES ({x});\n")).collect();
    conn.batch_execute(&script).unwrap();
    assert_eq!(sql::<BigInt>("SELECT sum(x) FROM t").get_result::<i64>(conn), Ok(499_500));
}

#[test]
fn read_the_row_they_wrote() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("INSERT INTO t VALUES (20); INSERT INTO t SELECT max(x) + 1 FROM t")
        .unwrap();
    assert_eq!(xs(conn), [20, 21]);
}

/// As with `sqlite3_exec`, parameters are NULL.
#[test]
fn with_parameters_write_null() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("INSERT INTO t VALUES (?), (:x)").unwrap();
    assert_eq!(
        sql::<BigInt>("SELECT count(*) FROM t WHERE x IS NULL").get_result::<i64>(conn),
        Ok(2)
    );
}

/// Some editors write a byte order mark at the beginning of a file; SQLite treats it as white
/// space.
#[test]
fn that_begin_with_a_byte_order_mark() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("\u{feff}INSERT INTO t VALUES (1)").unwrap();
    conn.batch_execute(
        "\u{feff}-- first\n\u{feff}INSERT INTO t VALUES (2);\u{feff}DELETE FROM t WHERE x = 1;",
    )
    .unwrap();
    conn.batch_execute("\u{feff}").unwrap();
    conn.batch_execute("\u{feff}BEGIN; INSERT INTO t VALUES (3); COMMIT;\u{feff}").unwrap();
    assert_eq!(sql_query("\u{feff}INSERT INTO t VALUES (4)").execute(conn), Ok(1));
    assert_eq!(xs(conn), [2, 3, 4]);
    assert_eq!(
        sql::<Integer>("\u{feff}SELECT x FROM t WHERE x = 2").get_result::<i32>(conn),
        Ok(2)
    );
    conn.batch_execute("\u{feff}PRAGMA user_version = 6").unwrap();
    assert_eq!(sql::<Integer>("PRAGMA user_version").get_result::<i32>(conn), Ok(6));
}

#[test]
fn with_semicolons_inside_parameters() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("INSERT INTO t VALUES ($a(;)); INSERT INTO t VALUES (@b::c(';)), (5)")
        .unwrap();
    assert_eq!(
        sql::<BigInt>("SELECT count(*) FROM t WHERE x IS NULL").get_result::<i64>(conn),
        Ok(2)
    );
}

#[test]
fn with_comments_inside_pragmas_and_transaction_control() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("PRAGMA user_version(/* to */ 8 /* now */)").unwrap();
    assert_eq!(sql::<Integer>("PRAGMA user_version").get_result::<i32>(conn), Ok(8));
    conn.batch_execute("PRAGMA query_only = /* yes */ ON /* for now */").unwrap();
    assert_eq!(sql::<Integer>("PRAGMA query_only").get_result::<i32>(conn), Ok(1));
    conn.batch_execute("PRAGMA query_only(/**/OFF/**/)").unwrap();
    conn.batch_execute("SAVEPOINT/**/a").unwrap();
    sql_query("INSERT INTO t VALUES (1)").execute(conn).unwrap();
    conn.batch_execute("RELEASE/* EXCLUSIVE */a").unwrap();
    assert_eq!(xs(conn), [1]);
}
