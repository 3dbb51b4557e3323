//! State of the connection: the numbers of its last write, and its PRAGMAs.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};

use super::{Conn, fresh, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, Named, Sparse, posts, users};

diesel::define_sql_function! { fn last_insert_rowid() -> BigInt; }
diesel::define_sql_function! { fn changes() -> BigInt; }
diesel::define_sql_function! { fn total_changes() -> BigInt; }

/// `last_insert_rowid()`, `changes()` and `total_changes()`.
fn numbers(conn: &mut Conn) -> (i64, i64, i64) {
    diesel::select((last_insert_rowid(), changes(), total_changes())).get_result(conn).unwrap()
}

#[test]
fn the_numbers_of_a_new_connection_are_zero() {
    let fixture = fresh_with(FULL_BLOG);
    assert_eq!(numbers(&mut fixture.another()), (0, 0, 0));
}

#[test]
fn the_numbers_after_each_kind_of_write() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    let mut after = |statement: &str| {
        sql_query(statement).execute(conn).unwrap();
        numbers(conn)
    };
    assert_eq!(after("INSERT INTO users (name) VALUES ('x')"), (4, 1, 1));
    assert_eq!(after("INSERT INTO users (id, name) VALUES (50, 'y'), (40, 'z')"), (40, 2, 3));
    assert_eq!(after("UPDATE users SET age = 1"), (40, 6, 9));
    assert_eq!(after("UPDATE users SET age = 1 WHERE id = 99"), (40, 0, 9));
    assert_eq!(after("DELETE FROM posts WHERE id > 1"), (40, 2, 11));
    assert_eq!(after("INSERT OR IGNORE INTO users (name) VALUES ('x')"), (40, 0, 11));
    // The replaced row is deleted, but not counted.
    assert_eq!(after("REPLACE INTO users (name) VALUES ('x')"), (51, 1, 12));
    assert_eq!(
        after("INSERT INTO posts (user_id, title) SELECT id, name FROM users WHERE 0"),
        (51, 0, 12)
    );
    assert_eq!(after("SELECT 1"), (51, 0, 12));
    assert_eq!(after("CREATE TABLE t (x)"), (51, 0, 12));
    assert_eq!(
        after("INSERT INTO users (name, age) VALUES ('x', 7) ON CONFLICT DO UPDATE SET age = 8"),
        (51, 1, 13)
    );
}

#[test]
fn the_numbers_after_writes_that_return() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    let ids = sql::<Integer>("INSERT INTO users (name) VALUES ('a'), ('b') RETURNING id")
        .load::<i32>(conn);
    assert_eq!(ids, Ok(vec![4, 5]));
    assert_eq!(numbers(conn), (5, 2, 2));
    let ids = sql::<Integer>("DELETE FROM posts RETURNING id").load::<i32>(conn);
    assert_eq!(ids, Ok(vec![1, 2, 3]));
    assert_eq!(numbers(conn), (5, 3, 5));
}

#[test]
fn the_numbers_after_batches() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    let rows = [Named { name: "a", age: 1 }, Named { name: "b", age: 2 }];
    diesel::insert_into(users::table).values(&rows).execute(conn).unwrap();
    assert_eq!(numbers(conn), (5, 2, 2));
    // One statement for each row.
    let rows = vec![
        Sparse { name: "c", hair: None, age: None },
        Sparse { name: "d", hair: None, age: Some(1) },
    ];
    diesel::insert_into(users::table).values(&rows).execute(conn).unwrap();
    assert_eq!(numbers(conn), (7, 1, 4));
}

#[test]
fn the_numbers_after_a_script() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    conn.batch_execute(
        "INSERT INTO users (id, name) VALUES (20, 'x'); DELETE FROM posts; \
         UPDATE users SET age = 1 WHERE id = 1",
    )
    .unwrap();
    assert_eq!(numbers(conn), (20, 1, 5));
}

/// A write that fails counts as one that changed nothing; a statement that cannot be prepared does
/// not count.
#[test]
fn the_numbers_after_a_failed_write() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    sql_query("INSERT INTO users (id, name) VALUES (10, 'x')").execute(conn).unwrap();
    sql_query("INSERT INTO users (name) VALUES ('Sean')").execute(conn).unwrap_err();
    assert_eq!(numbers(conn), (10, 0, 1));
    sql_query("DELETE FROM posts WHERE id = 1").execute(conn).unwrap();
    sql_query("UPDATE posts SET votes = votes - 3").execute(conn).unwrap_err();
    assert_eq!(numbers(conn), (10, 0, 2));
    sql_query("DELETE FROM posts WHERE id = 2").execute(conn).unwrap();
    sql_query("nonsense").execute(conn).unwrap_err();
    assert_eq!(numbers(conn), (10, 1, 3));
}

#[test]
fn the_numbers_after_triggers_and_cascades() {
    let fixture = fresh_with(
        "CREATE TABLE t (x INTEGER);
         CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
         CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO log \
         VALUES (900 + new.x, 'insert'), (950, 'again'); END",
    );
    let conn = &mut fixture.another();
    sql_query("INSERT INTO t VALUES (1)").execute(conn).unwrap();
    assert_eq!(numbers(conn), (1, 1, 3));
}

#[test]
fn the_numbers_inside_and_after_a_transaction() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    conn.transaction(|conn| {
        sql_query("INSERT INTO users (id, name) VALUES (10, 'x')").execute(conn)?;
        assert_eq!(numbers(conn), (10, 1, 1));
        sql_query("DELETE FROM posts").execute(conn)?;
        assert_eq!(numbers(conn), (10, 3, 4));
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(numbers(conn), (10, 3, 4));
}

/// SQLite does not restore the numbers on a rollback.
#[test]
fn the_numbers_after_a_rollback() {
    let fixture = fresh_with(FULL_BLOG);
    let conn = &mut fixture.another();
    let result = conn.transaction(|conn| {
        sql_query("INSERT INTO users (id, name) VALUES (10, 'x'), (11, 'y')").execute(conn)?;
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(result, Err(diesel::result::Error::RollbackTransaction));
    assert_eq!(numbers(conn), (11, 2, 2));
}

#[test]
fn the_numbers_are_the_connections_own() {
    let fixture = fresh_with(FULL_BLOG);
    let (one, other) = (&mut fixture.another(), &mut fixture.another());
    sql_query("INSERT INTO users (id, name) VALUES (10, 'x')").execute(one).unwrap();
    sql_query("INSERT INTO users (id, name) VALUES (20, 'y'), (21, 'z')").execute(other).unwrap();
    assert_eq!(numbers(one), (10, 1, 1));
    assert_eq!(numbers(other), (21, 2, 2));
    sql_query("DELETE FROM posts").execute(one).unwrap();
    assert_eq!(numbers(other), (21, 2, 2));
}

#[test]
fn the_last_rowid_inside_the_next_write() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("INSERT INTO users (id, name) VALUES (10, 'x')").execute(conn).unwrap();
    let inserted = sql_query(
        "INSERT INTO posts (user_id, title, votes) VALUES (last_insert_rowid(), 'y', changes())",
    );
    assert_eq!(inserted.execute(conn), Ok(1));
    let row: (i32, i32) = posts::table
        .order(posts::id.desc())
        .select((posts::user_id, posts::votes))
        .first(conn)
        .unwrap();
    assert_eq!(row, (10, 1));
}

#[test]
fn the_last_rowid_inside_a_script() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(
        "INSERT INTO users (id, name) VALUES (10, 'x');
         INSERT INTO posts (user_id, title) VALUES (last_insert_rowid(), 'y')",
    )
    .unwrap();
    assert_eq!(
        posts::table.select(posts::user_id).order(posts::id.desc()).first::<i32>(conn),
        Ok(10)
    );
}

const ORPHAN: &str = "INSERT INTO posts (user_id, title) VALUES (99, 'orphan')";

#[test]
fn foreign_keys_can_be_switched_off_and_on() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    assert_eq!(sql::<Integer>("PRAGMA foreign_keys").get_result::<i32>(conn), Ok(0));
    assert_eq!(sql_query(ORPHAN).execute(conn), Ok(1));
    sql_query("PRAGMA foreign_keys = ON").execute(conn).unwrap();
    assert_eq!(sql::<Integer>("PRAGMA foreign_keys").get_result::<i32>(conn), Ok(1));
    assert_eq!(refused(sql_query(ORPHAN).execute(conn)).0, "foreign key");
}

#[test]
fn foreign_keys_are_the_connections_own() {
    let fixture = fresh_with(FULL_BLOG);
    let (one, other) = (&mut fixture.another(), &mut fixture.another());
    one.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    assert_eq!(sql_query(ORPHAN).execute(one), Ok(1));
    assert_eq!(refused(sql_query(ORPHAN).execute(other)).0, "foreign key");
    assert_eq!(sql_query(ORPHAN).execute(one), Ok(1));
}

/// SQLite ignores the PRAGMA while a transaction is open.
#[test]
fn foreign_keys_cannot_be_switched_inside_a_transaction() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.transaction(|conn| {
        sql_query("UPDATE users SET age = 1").execute(conn)?;
        conn.batch_execute("PRAGMA foreign_keys = OFF")?;
        assert_eq!(sql::<Integer>("PRAGMA foreign_keys").get_result::<i32>(conn), Ok(1));
        assert_eq!(refused(sql_query(ORPHAN).execute(conn)).0, "foreign key");
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(refused(sql_query(ORPHAN).execute(conn)).0, "foreign key");
}

#[test]
fn foreign_keys_switched_off_inside_a_script() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(&format!("PRAGMA foreign_keys = OFF; {ORPHAN}; PRAGMA foreign_keys = ON"))
        .unwrap();
    assert_eq!(posts::table.filter(posts::user_id.eq(99)).count().get_result::<i64>(conn), Ok(1));
    assert_eq!(refused(sql_query(ORPHAN).execute(conn)).0, "foreign key");
}

#[test]
fn deferred_foreign_keys_are_checked_at_the_commit() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let child_first = conn.transaction(|conn| {
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")?;
        sql_query(ORPHAN).execute(conn)?;
        sql_query("INSERT INTO users (id, name) VALUES (99, 'late')").execute(conn)
    });
    assert_eq!(child_first, Ok(1));
    let childless = conn.transaction(|conn| {
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")?;
        sql_query("INSERT INTO posts (user_id, title) VALUES (77, 'orphan')").execute(conn)
    });
    assert_eq!(refused(childless), ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    assert_eq!(posts::table.count().get_result::<i64>(conn), Ok(4));
    // The commit has reset it.
    assert_eq!(
        refused(sql_query("INSERT INTO posts (user_id, title) VALUES (77, 'x')").execute(conn)).0,
        "foreign key"
    );
}

#[test]
fn foreign_keys_deferred_in_the_middle_of_a_transaction() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        sql_query("UPDATE users SET age = 1").execute(conn)?;
        sql_query("PRAGMA defer_foreign_keys = ON").execute(conn)?;
        sql_query(ORPHAN).execute(conn)?;
        sql_query("INSERT INTO users (id, name) VALUES (99, 'late')").execute(conn)
    });
    assert_eq!(result, Ok(1));
}

#[test]
fn a_deferred_constraint_of_the_schema() {
    let conn = &mut *fresh_with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (p INTEGER REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let alone = sql_query("INSERT INTO c VALUES (1)").execute(conn);
    assert_eq!(refused(alone), ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    let mended = conn.transaction(|conn| {
        sql_query("INSERT INTO c VALUES (1)").execute(conn)?;
        sql_query("INSERT INTO p VALUES (1)").execute(conn)
    });
    assert_eq!(mended, Ok(1));
    let broken = conn.transaction(|conn| sql_query("INSERT INTO c VALUES (2)").execute(conn));
    assert_eq!(refused(broken), ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    assert_eq!(sql::<Integer>("SELECT p FROM c").load::<i32>(conn), Ok(vec![1]));
}

#[test]
fn recursive_triggers() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (x INTEGER);
         CREATE TRIGGER down AFTER INSERT ON t WHEN new.x > 0 BEGIN INSERT INTO t \
         VALUES (new.x - 1); END",
    );
    let insert = |conn: &mut Conn| {
        sql_query("DELETE FROM t").execute(conn).unwrap();
        assert_eq!(sql_query("INSERT INTO t VALUES (5)").execute(conn), Ok(1));
        sql::<BigInt>("SELECT count(*) FROM t").get_result::<i64>(conn).unwrap()
    };
    assert_eq!(insert(conn), 2);
    conn.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    assert_eq!(insert(conn), 6);
    conn.batch_execute("PRAGMA recursive_triggers = OFF").unwrap();
    assert_eq!(insert(conn), 2);
}

#[test]
fn check_constraints_can_be_ignored() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let update = "UPDATE posts SET votes = -1 WHERE id = 1";
    sql_query("PRAGMA ignore_check_constraints = ON").execute(conn).unwrap();
    assert_eq!(sql_query(update).execute(conn), Ok(1));
    sql_query("PRAGMA ignore_check_constraints = OFF").execute(conn).unwrap();
    assert_eq!(refused(sql_query(update).execute(conn)).0, "check");
}

#[test]
fn settings_of_the_connection_return_their_value() {
    let conn = &mut *fresh();
    conn.batch_execute(
        "PRAGMA cache_size = 77; PRAGMA busy_timeout = 1234; PRAGMA synchronous = FULL",
    )
    .unwrap();
    assert_eq!(sql::<Integer>("PRAGMA cache_size").get_result::<i32>(conn), Ok(77));
    assert_eq!(sql::<Integer>("PRAGMA busy_timeout").get_result::<i32>(conn), Ok(1234));
    assert_eq!(sql::<Integer>("PRAGMA synchronous").get_result::<i32>(conn), Ok(2));
    assert_eq!(sql::<Text>("PRAGMA journal_mode").get_result::<String>(conn), Ok("wal".to_owned()));
}

#[test]
fn query_only_set_by_the_user_refuses_writes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("PRAGMA query_only = ON").unwrap();
    let written = sql_query("UPDATE users SET age = 1").execute(conn);
    assert_eq!(refused(written), ("unknown", "attempt to write a readonly database".to_owned()));
    conn.batch_execute("PRAGMA query_only = OFF").unwrap();
    assert_eq!(sql_query("UPDATE users SET age = 1").execute(conn), Ok(3));
}

#[test]
fn query_only_is_off_by_default() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(sql::<Integer>("PRAGMA query_only").get_result::<i32>(conn), Ok(0));
}
