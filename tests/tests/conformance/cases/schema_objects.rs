//! Tables of every kind, views, triggers, indexes, and the effects of schema changes.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};

use super::{Conn, fresh, fresh_with};
use crate::refused;
use crate::schema::FULL_BLOG;

fn count(conn: &mut Conn, table: &str) -> i64 {
    sql::<BigInt>(&format!("SELECT count(*) FROM {table}")).get_result(conn).unwrap()
}

#[test]
fn a_table_is_there_as_soon_as_it_is_made() {
    let conn = &mut *fresh();
    assert_eq!(sql_query("CREATE TABLE t (x INTEGER)").execute(conn), Ok(0));
    assert_eq!(count(conn, "t"), 0);
    assert_eq!(sql_query("INSERT INTO t VALUES (1), (2)").execute(conn), Ok(2));
    assert_eq!(count(conn, "t"), 2);
}

/// Diesel returns `sqlite3_changes()`, which schema changes do not modify.
#[test]
fn the_count_of_a_schema_change_is_that_of_the_last_write() {
    let conn = &mut *fresh_with("CREATE TABLE t (x INTEGER)");
    assert_eq!(sql_query("INSERT INTO t VALUES (1), (2), (3)").execute(conn), Ok(3));
    assert_eq!(sql_query("CREATE TABLE u (x INTEGER)").execute(conn), Ok(3));
    assert_eq!(sql_query("CREATE INDEX i ON t (x)").execute(conn), Ok(3));
    assert_eq!(sql_query("UPDATE t SET x = 0 WHERE x = 1").execute(conn), Ok(1));
    assert_eq!(sql_query("ALTER TABLE t ADD COLUMN y").execute(conn), Ok(1));
    assert_eq!(sql_query("DROP TABLE u").execute(conn), Ok(1));
}

#[test]
fn the_count_of_a_schema_change_on_a_new_connection_is_zero() {
    let fixture = fresh_with("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1), (2)");
    let conn = &mut fixture.another();
    assert_eq!(sql_query("CREATE TABLE u (x INTEGER)").execute(conn), Ok(0));
    assert_eq!(sql_query("DROP TABLE u").execute(conn), Ok(0));
}

#[test]
fn create_if_not_exists_and_drop_if_exists() {
    let conn = &mut *fresh_with("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)");
    conn.batch_execute("CREATE TABLE IF NOT EXISTS t (y TEXT)").unwrap();
    assert_eq!(count(conn, "t"), 1);
    conn.batch_execute("DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS t").unwrap();
    let read = sql::<BigInt>("SELECT count(*) FROM t").get_result::<i64>(conn);
    assert_eq!(refused(read), ("unknown", "no such table: t".to_owned()));
}

#[test]
fn create_table_as_select() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("CREATE TABLE names AS SELECT name FROM users").execute(conn).unwrap();
    assert_eq!(count(conn, "names"), 3);
}

#[test]
fn alter_table() {
    let conn = &mut *fresh_with("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)");
    conn.batch_execute("ALTER TABLE t ADD COLUMN y TEXT NOT NULL DEFAULT 'new'").unwrap();
    conn.batch_execute("ALTER TABLE t RENAME COLUMN x TO z").unwrap();
    conn.batch_execute("ALTER TABLE t RENAME TO u").unwrap();
    assert_eq!(
        sql::<(Integer, Text)>("SELECT z, y FROM u").get_result(conn),
        Ok((1, "new".to_owned()))
    );
    conn.batch_execute("ALTER TABLE u DROP COLUMN y").unwrap();
    assert_eq!(sql::<Integer>("SELECT * FROM u").get_result::<i32>(conn), Ok(1));
}

#[test]
fn a_table_altered_by_another_connection_is_read() {
    let fixture = &mut fresh_with("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)");
    let other = &mut fixture.another();
    assert_eq!(sql::<Integer>("SELECT * FROM t").get_result::<i32>(&mut **fixture), Ok(1));
    other.batch_execute("ALTER TABLE t ADD COLUMN y TEXT DEFAULT 'new'").unwrap();
    let row = sql::<(Integer, Text)>("SELECT * FROM t").get_result::<(i32, String)>(&mut **fixture);
    assert_eq!(row, Ok((1, "new".to_owned())));
}

#[test]
fn views_are_read_and_cannot_be_written() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(
        "CREATE VIEW authors AS SELECT DISTINCT name FROM users JOIN posts ON user_id = users.id",
    )
    .unwrap();
    assert_eq!(count(conn, "authors"), 2);
    let written = sql_query("INSERT INTO authors VALUES ('x')").execute(conn);
    assert_eq!(
        refused(written),
        ("unknown", "cannot modify authors because it is a view".to_owned())
    );
}

#[test]
fn a_view_with_an_instead_of_trigger_is_written() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(
        "CREATE VIEW names AS SELECT name FROM users;
         CREATE TRIGGER new_name INSTEAD OF INSERT ON names BEGIN INSERT INTO users (name) \
         VALUES (new.name); END",
    )
    .unwrap();
    // SQLite does not count the changes of triggers, and the view itself has no rows.
    let inserted = sql_query("INSERT INTO names VALUES ('New')").execute(conn);
    assert_eq!(inserted, Ok(0));
    assert_eq!(count(conn, "users"), 4);
}

#[test]
fn triggers_run_and_are_not_counted() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (x INTEGER);
         CREATE TABLE log (what TEXT);
         CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('insert'), ('again'); END;
         CREATE TRIGGER d BEFORE DELETE ON t BEGIN INSERT INTO log VALUES ('delete'); END",
    );
    assert_eq!(sql_query("INSERT INTO t VALUES (1), (2)").execute(conn), Ok(2));
    assert_eq!(sql_query("DELETE FROM t WHERE x = 1").execute(conn), Ok(1));
    assert_eq!(count(conn, "log"), 5);
}

#[test]
fn a_trigger_can_refuse() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (x INTEGER);
         CREATE TRIGGER i BEFORE INSERT ON t WHEN new.x < 0 BEGIN \
         SELECT RAISE (ABORT, 'not below zero'); END;
         CREATE TRIGGER u BEFORE UPDATE ON t WHEN new.x = 0 BEGIN SELECT RAISE (IGNORE); END",
    );
    let inserted = sql_query("INSERT INTO t VALUES (1), (-1)").execute(conn);
    assert_eq!(refused(inserted), ("unknown", "not below zero".to_owned()));
    assert_eq!(count(conn, "t"), 0);
    assert_eq!(sql_query("INSERT INTO t VALUES (1), (2)").execute(conn), Ok(2));
    assert_eq!(sql_query("UPDATE t SET x = x - 1").execute(conn), Ok(1));
}

#[test]
fn generated_columns() {
    let conn = &mut *fresh_with(
        "CREATE TABLE boxes (w INTEGER, h INTEGER, area INTEGER GENERATED ALWAYS AS (w * h) \
         STORED, half AS (w / 2.0))",
    );
    let returned = sql::<Integer>("INSERT INTO boxes (w, h) VALUES (3, 4) RETURNING area")
        .get_result::<i32>(conn);
    assert_eq!(returned, Ok(12));
    let half = sql::<diesel::sql_types::Double>("SELECT half FROM boxes").get_result::<f64>(conn);
    assert_eq!(half, Ok(1.5));
    let written = sql_query("UPDATE boxes SET area = 1").execute(conn);
    assert_eq!(refused(written), ("unknown", "cannot UPDATE generated column \"area\"".to_owned()));
}

#[test]
fn strict_tables_refuse_other_types() {
    let conn = &mut *fresh_with("CREATE TABLE s (i INTEGER, t TEXT, a ANY) STRICT");
    let inserted = sql_query("INSERT INTO s VALUES ('x', 'y', 1)").execute(conn);
    assert_eq!(
        refused(inserted),
        ("unknown", "cannot store TEXT value in INTEGER column s.i".to_owned())
    );
    let inserted = sql_query("INSERT INTO s (t) VALUES (?)")
        .bind::<diesel::sql_types::Binary, _>(vec![1])
        .execute(conn);
    assert_eq!(
        refused(inserted),
        ("unknown", "cannot store BLOB value in TEXT column s.t".to_owned())
    );
    let inserted = sql_query("INSERT INTO s VALUES ('1', 2, '3') RETURNING i").execute(conn);
    assert_eq!(inserted, Ok(1));
    let types =
        sql::<(Text, Text, Text)>("SELECT typeof(i), typeof(t), typeof(a) FROM s").get_result(conn);
    assert_eq!(types, Ok(("integer".to_owned(), "text".to_owned(), "text".to_owned())));
}

#[test]
fn tables_without_rowid() {
    let conn = &mut *fresh_with(
        "CREATE TABLE w (a TEXT, b INTEGER, n INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID",
    );
    assert_eq!(sql_query("INSERT INTO w VALUES ('x', 2, 0), ('x', 1, 0)").execute(conn), Ok(2));
    let order = sql::<Integer>("SELECT b FROM w").load::<i32>(conn);
    assert_eq!(order, Ok(vec![1, 2]));
    let inserted = sql_query("INSERT INTO w VALUES ('x', 1, 9)").execute(conn);
    assert_eq!(refused(inserted), ("unique", "UNIQUE constraint failed: w.a, w.b".to_owned()));
    let inserted = sql_query("INSERT INTO w VALUES (NULL, 1, 9)").execute(conn);
    assert_eq!(refused(inserted), ("not null", "NOT NULL constraint failed: w.a".to_owned()));
}

#[test]
fn partial_and_expression_indexes() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (name TEXT, gone INTEGER);
         CREATE UNIQUE INDEX present ON t (lower(name)) WHERE NOT gone;
         INSERT INTO t VALUES ('A', 0), ('a', 1), ('a', 1);",
    );
    let inserted = sql_query("INSERT INTO t VALUES ('a', 0)").execute(conn);
    assert_eq!(
        refused(inserted),
        ("unique", "UNIQUE constraint failed: index 'present'".to_owned())
    );
}

#[test]
fn autoincrement_never_reuses_an_id() {
    let conn = &mut *fresh_with("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x)");
    conn.batch_execute("INSERT INTO t (x) VALUES (1), (2); DELETE FROM t").unwrap();
    assert_eq!(
        sql::<Integer>("INSERT INTO t (x) VALUES (3) RETURNING id").get_result::<i32>(conn),
        Ok(3)
    );
}

#[test]
fn collations_of_sqlite() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (name TEXT COLLATE NOCASE UNIQUE); INSERT INTO t VALUES ('Sean')",
    );
    let inserted = sql_query("INSERT INTO t VALUES ('SEAN')").execute(conn);
    assert_eq!(refused(inserted), ("unique", "UNIQUE constraint failed: t.name".to_owned()));
    assert_eq!(sql_query("DELETE FROM t WHERE name = 'sEAN'").execute(conn), Ok(1));
}

#[test]
fn the_user_version() {
    let conn = &mut *fresh();
    conn.batch_execute("PRAGMA user_version = 42").unwrap();
    assert_eq!(sql::<Integer>("PRAGMA user_version").get_result::<i32>(conn), Ok(42));
    sql_query("PRAGMA user_version(-7)").execute(conn).unwrap();
    assert_eq!(sql::<Integer>("PRAGMA main.user_version").get_result::<i32>(conn), Ok(-7));
}

#[test]
fn vacuum_analyze_and_reindex() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("ANALYZE").execute(conn).unwrap();
    assert_eq!(
        sql::<Text>("SELECT stat FROM sqlite_stat1 WHERE tbl = 'posts'").get_result(conn),
        Ok("3".to_owned())
    );
    conn.batch_execute("REINDEX").unwrap();
    conn.batch_execute("DELETE FROM posts; VACUUM").unwrap();
    assert_eq!(sql::<Text>("PRAGMA integrity_check").get_result(conn), Ok("ok".to_owned()));
    assert_eq!(count(conn, "users"), 3);
}
