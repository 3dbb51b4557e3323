//! State of the connection: temporary tables, PRAGMAs, functions, and the numbers of a write.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};
use litefs_diesel::Failure;
use litefs_tests::TestCluster;

use super::{changes, failure, items, last_insert_rowid, names, test_cluster};

#[test]
fn m12_temporary_tables_and_session_pragmas_stay_local() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("PRAGMA cache_size = 100; PRAGMA busy_timeout = 77").unwrap();
    conn.batch_execute("CREATE TEMP TABLE scratch (x INTEGER)").unwrap();
    assert_eq!(diesel::sql_query("INSERT INTO scratch VALUES (1), (2)").execute(&mut conn), Ok(2));
    let sum: i64 =
        diesel::dsl::sql::<BigInt>("SELECT sum(x) FROM scratch").get_result(&mut conn).unwrap();
    assert_eq!(sum, 3);
    let x: i32 = diesel::dsl::sql::<Integer>("INSERT INTO scratch VALUES (5) RETURNING x")
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(x, 5);
    let timeout: i32 =
        diesel::dsl::sql::<Integer>("PRAGMA busy_timeout").get_result(&mut conn).unwrap();
    assert_eq!(timeout, 77);
    assert_eq!(test.litefs("b").round_trips(), 0);
    // The file itself is still protected.
    let error =
        conn.on_local(|conn| diesel::sql_query("DELETE FROM items").execute(conn)).unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    let error = conn
        .batch_execute("INSERT INTO scratch VALUES (1); INSERT INTO items (name) VALUES ('x')")
        .unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    assert!(names(&mut test.plain("a")).is_empty(), "no part of a split script is applied");
}

/// Uses a temporary table and the database together: in one statement, and in one transaction.
fn mixes(conn: &mut litefs_diesel::LiteFsConnection) -> [QueryResult<usize>; 3] {
    conn.batch_execute("CREATE TEMP TABLE scratch (x INTEGER); INSERT INTO scratch VALUES (1)")
        .unwrap();
    let run = |conn: &mut litefs_diesel::LiteFsConnection, sql: &str| {
        diesel::sql_query(sql).execute(conn)
    };
    let copied = run(conn, "INSERT INTO items (name) SELECT 'copied ' || x FROM scratch");
    let temporary_first = conn.transaction(|conn| {
        run(conn, "INSERT INTO scratch VALUES (2)")?;
        run(conn, "INSERT INTO items (name) VALUES ('second')")
    });
    let temporary_last = conn.transaction(|conn| {
        run(conn, "INSERT INTO items (name) VALUES ('first')")?;
        run(conn, "INSERT INTO scratch VALUES (3)")
    });
    [copied, temporary_first, temporary_last]
}

#[test]
fn m12_mixing_temporary_and_main_tables_fails_on_a_replica() {
    let test = test_cluster();
    let on_replica = mixes(&mut test.conn("b"));
    for refused in on_replica {
        let error = refused.unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    }
    assert!(names(&mut test.plain("a")).is_empty(), "no part of it is applied");
    assert_eq!(mixes(&mut test.conn("a")), [Ok(1), Ok(1), Ok(1)]);
    assert_eq!(names(&mut test.plain("a")), ["copied 1", "second", "first"]);
}

#[test]
fn m13_the_replicas_foreign_keys_apply_to_forwarded_writes() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let orphan = "INSERT INTO parts (item) VALUES (99)";
    conn.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    assert_eq!(diesel::sql_query(orphan).execute(&mut conn), Ok(1));
    diesel::sql_query("PRAGMA foreign_keys = ON").execute(&mut conn).unwrap();
    assert_eq!(failure(&mut conn, orphan).0, "ForeignKeyViolation");
    // Another connection has its own setting, in between and afterwards.
    let mut other = test.conn("b");
    other.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    assert_eq!(diesel::sql_query(orphan).execute(&mut other), Ok(1));
    assert_eq!(failure(&mut conn, orphan).0, "ForeignKeyViolation");
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn shout(text: Text) -> Text;
}

#[test]
fn m14_custom_functions_and_collations_are_forwarded() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.on_connection(|conn| {
            shout_utils::register_impl(conn, |text: String| text.to_uppercase())?;
            conn.register_collation("caseless", |a, b| a.to_lowercase().cmp(&b.to_lowercase()))
        })
    });
    test.schema(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT COLLATE caseless UNIQUE, price \
         DOUBLE)",
    );
    let mut conn = test.conn("b");
    diesel::insert_into(items::table)
        .values(items::name.eq(shout("abc")))
        .execute(&mut conn)
        .unwrap();
    assert_eq!(failure(&mut conn, "INSERT INTO items (name) VALUES ('aBc')").0, "UniqueViolation");
    assert_eq!(test.litefs("b").round_trips(), 2);
    let found: String = items::table
        .filter(items::name.eq("abc"))
        .select(items::name)
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(found, "ABC");
}

#[test]
fn m15_rowid_and_changes_are_those_of_the_forwarded_write() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    diesel::sql_query("INSERT INTO items (id, name) VALUES (41, 'x'), (42, 'y')")
        .execute(&mut conn)
        .unwrap();
    // Other connections write in between: their numbers are not visible here.
    diesel::sql_query("INSERT INTO items (id, name) VALUES (7, 'z')")
        .execute(&mut test.conn("b"))
        .unwrap();
    diesel::sql_query("INSERT INTO items (id, name) VALUES (8, 'zz')")
        .execute(&mut test.conn("a"))
        .unwrap();
    let answers: (i64, i64) =
        diesel::select((last_insert_rowid(), changes())).get_result(&mut conn).unwrap();
    assert_eq!(answers, (42, 2));
    diesel::sql_query("UPDATE items SET price = 1 WHERE id < 10").execute(&mut conn).unwrap();
    let answers: (i64, i64) =
        diesel::select((last_insert_rowid(), changes())).get_result(&mut conn).unwrap();
    assert_eq!(answers, (42, 2));
    let name: String = items::table
        .filter(
            items::id.nullable().eq(diesel::dsl::sql::<Nullable<Integer>>("last_insert_rowid()")),
        )
        .select(items::name)
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(name, "y");
    diesel::sql_query("INSERT INTO parts (item) VALUES (last_insert_rowid())")
        .execute(&mut conn)
        .unwrap();
    let item: i32 = diesel::dsl::sql::<Integer>("SELECT item FROM parts")
        .get_result(&mut test.plain("a"))
        .unwrap();
    assert_eq!(item, 42);
}
