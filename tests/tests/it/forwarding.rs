//! Forwarding from a replica: scenarios M1 to M16 of the acceptance list.

use std::time::{Duration, Instant};

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Integer, Nullable, Text};
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{
    BatchInsertDsl, EverythingOnPrimary, Failure, LiteFs, RejectWrites, Route, Router, Situation,
};
use litefs_tests::{DATABASE, TestCluster};

diesel::table! { items { id -> Integer, name -> Text, price -> Nullable<Double>, } }
diesel::table! {
    everything {
        id -> Integer,
        i -> Nullable<BigInt>,
        d -> Nullable<Double>,
        t -> Nullable<Text>,
        b -> Nullable<Binary>,
    }
}

const SCHEMA: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        price DOUBLE CHECK (price >= 0));
    CREATE TABLE parts (id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES items (id));
    CREATE TABLE everything (id INTEGER PRIMARY KEY, i BIGINT, d DOUBLE, t TEXT, b BLOB)";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn names(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<String> {
    items::table.order(items::id).select(items::name).load(conn).unwrap()
}

#[test]
fn m1_reads_never_touch_the_network() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for _ in 0..50 {
        assert!(names(&mut conn).is_empty());
        let _: i64 = items::table.count().get_result(&mut conn).unwrap();
        diesel::sql_query("WITH x AS (SELECT 1) SELECT * FROM x, items")
            .execute(&mut conn)
            .unwrap();
        conn.batch_execute("SELECT 1; SELECT count(*) FROM items").unwrap();
    }
    assert_eq!(test.litefs("b").round_trips(), 0);
}

#[test]
fn m2_writes_on_the_primary_run_locally() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    let id: i32 = diesel::insert_into(items::table)
        .values(items::name.eq("x"))
        .returning(items::id)
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(id, 1);
    assert_eq!(diesel::update(items::table).set(items::price.eq(2.0)).execute(&mut conn), Ok(1));
    assert_eq!(test.litefs("a").round_trips(), 0);
    assert_eq!(names(&mut test.plain("a")), ["x"]);
}

#[test]
fn m3_every_kind_of_write_is_forwarded_with_its_count() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let mut count = |sql: &str| diesel::sql_query(sql).execute(&mut conn).unwrap();
    assert_eq!(count("INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')"), 3);
    assert_eq!(count("UPDATE items SET price = 1 WHERE id > 1"), 2);
    assert_eq!(count("UPDATE items SET price = 1 WHERE id > 9"), 0);
    assert_eq!(count("REPLACE INTO items (id, name) VALUES (3, 'cc')"), 1);
    assert_eq!(
        count(
            "INSERT INTO items (id, name) VALUES (1, 'z') ON CONFLICT (id) DO UPDATE \
             SET name = excluded.name"
        ),
        1
    );
    assert_eq!(
        count("WITH n(x) AS (VALUES ('d'), ('e')) INSERT INTO items (name) SELECT x FROM n"),
        2
    );
    assert_eq!(count("DELETE FROM items WHERE id = 2"), 1);
    count("CREATE INDEX by_price ON items (price)");
    conn.batch_execute(
        "INSERT INTO items (name) VALUES ('f'); UPDATE items SET name = 'ff' WHERE name = 'f'",
    )
    .unwrap();
    let expected = ["z", "cc", "d", "e", "ff"];
    assert_eq!(names(&mut test.plain("a")), expected);
    assert_eq!(names(&mut conn), expected);
    let index: i64 =
        diesel::dsl::sql::<BigInt>("SELECT count(*) FROM sqlite_schema WHERE name = 'by_price'")
            .get_result(&mut conn)
            .unwrap();
    assert_eq!(index, 1);
}

type Row = (i32, Option<i64>, Option<f64>, Option<String>, Option<Vec<u8>>);

fn edge_rows() -> Vec<Row> {
    let text = |s: &str| Some(s.to_owned());
    vec![
        (1, None, None, None, None),
        (2, Some(i64::MIN), Some(-0.5), text(""), Some(vec![])),
        (3, Some(i64::MAX), Some(f64::INFINITY), text("a\0b"), Some(vec![0, 255])),
        (
            4,
            Some(0),
            Some(f64::NEG_INFINITY),
            text("\u{1F980} 'quoted' \"?\""),
            Some(vec![7; 100_000]),
        ),
        (5, Some(-1), Some(5e-324), text(&"é".repeat(50_000)), None),
        (6, Some(1), Some(f64::MAX), text("?1 :x @y"), None),
    ]
}

#[test]
fn m4_every_sql_type_is_returned_by_every_load_method() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for row in edge_rows() {
        let (id, i, d, t, b) = row.clone();
        let values = (
            everything::id.eq(id),
            everything::i.eq(i),
            everything::d.eq(d),
            everything::t.eq(t),
            everything::b.eq(b),
        );
        let insert = diesel::insert_into(everything::table)
            .values(values)
            .returning(everything::all_columns);
        let back: Row = insert.get_result(&mut conn).unwrap();
        assert_eq!(format!("{back:?}"), format!("{row:?}"));
    }
    let update = || {
        diesel::update(everything::table)
            .set(everything::i.eq(everything::i))
            .returning(everything::all_columns)
    };
    let expected = format!("{:?}", edge_rows());
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by_key(|row| row.0);
        format!("{rows:?}")
    };
    assert_eq!(sorted(update().load(&mut conn).unwrap()), expected);
    assert_eq!(sorted(update().get_results(&mut conn).unwrap()), expected);
    let iterated =
        update().load_iter::<Row, diesel::connection::DefaultLoadingMode>(&mut conn).unwrap();
    assert_eq!(sorted(iterated.map(Result::unwrap).collect()), expected);
    assert_eq!(sorted(everything::table.load(&mut test.plain("a")).unwrap()), expected);
    assert_eq!(sorted(everything::table.load(&mut conn).unwrap()), expected);
}

#[test]
fn m4_a_negative_zero_keeps_its_sign_on_the_wire() {
    // In a REAL column SQLite stores it as an integer; as an expression it is not converted.
    let zero: f64 = test_cluster()
        .conn("b")
        .on_primary(|conn| {
            diesel::select((-0.0_f64).into_sql::<diesel::sql_types::Double>()).get_result(conn)
        })
        .unwrap();
    assert_eq!(zero.to_bits(), (-0.0_f64).to_bits());
}

#[test]
fn m4_a_nan_becomes_null_as_in_sqlite() {
    let test = test_cluster();
    let back: Option<f64> = diesel::insert_into(everything::table)
        .values(everything::d.eq(f64::NAN))
        .returning(everything::d)
        .get_result(&mut test.conn("b"))
        .unwrap();
    assert_eq!(back, None);
}

#[derive(Insertable)]
#[diesel(table_name = items)]
struct NewItem {
    name: String,
    price: Option<f64>,
}

#[test]
fn m5_ten_thousand_rows_without_defaults_are_one_insert() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let rows = |prefix: &str| -> Vec<_> {
        (0..10_000)
            .map(|i| (items::name.eq(format!("{prefix}{i}")), items::price.eq(f64::from(i))))
            .collect()
    };
    assert_eq!(diesel::insert_into(items::table).values(rows("a")).execute(&mut conn), Ok(10_000));
    let back: Vec<(i32, String)> = diesel::insert_into(items::table)
        .values(rows("b"))
        .returning((items::id, items::name))
        .get_results_at_once(&mut conn)
        .unwrap();
    assert_eq!((back.len(), &back[9_999]), (10_000, &(20_000, "b9999".to_owned())));
    assert_eq!(test.litefs("b").round_trips(), 2);
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 20_000);
}

fn with_defaults(prefix: &str, count: i32) -> Vec<NewItem> {
    (0..count)
        .map(|i| NewItem {
            name: format!("{prefix}{i}"),
            price: (i % 2 == 0).then(|| f64::from(i)),
        })
        .collect()
}

#[test]
fn m5_rows_with_defaults_are_atomic_through_diesels_call() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    assert_eq!(
        diesel::insert_into(items::table).values(with_defaults("a", 500)).execute(&mut conn),
        Ok(500)
    );
    let mut taken = with_defaults("b", 100);
    taken.push(NewItem { name: "a5".into(), price: None });
    let error = diesel::insert_into(items::table).values(taken).execute(&mut conn).unwrap_err();
    assert!(
        matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
        "{error:?}"
    );
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 500);
}

#[test]
fn x12_m5_rows_with_defaults_take_one_trip_through_our_call() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let insert = |rows| diesel::insert_into(items::table).values(rows);
    assert_eq!(insert(with_defaults("a", 10_000)).execute_at_once(&mut conn), Ok(10_000));
    let prices: Vec<Option<f64>> = insert(with_defaults("b", 10_000))
        .returning(items::price)
        .get_results_at_once(&mut conn)
        .unwrap();
    assert_eq!((prices.len(), prices[1], prices[2]), (10_000, None, Some(2.0)));
    assert_eq!(test.litefs("b").round_trips(), 2);
    let mut taken = with_defaults("c", 100);
    taken.push(NewItem { name: "a5".into(), price: None });
    let error = insert(taken).execute_at_once(&mut conn).unwrap_err();
    assert!(
        matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
        "{error:?}"
    );
    // The same inside a transaction, which stays usable after a batch that failed.
    conn.transaction(|conn| {
        insert(with_defaults("d", 10)).execute_at_once(conn)?;
        insert(with_defaults("d", 1)).execute_at_once(conn).unwrap_err();
        insert(with_defaults("e", 10)).execute_at_once(conn)
    })
    .unwrap();
    // The same on the primary.
    assert_eq!(insert(with_defaults("f", 10)).execute_at_once(&mut test.conn("a")), Ok(10));
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 20_030);
}

#[test]
fn m5_a_thousand_equal_rows_are_atomic() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let rows = |prefix: &str, taken: Option<usize>| -> Vec<_> {
        let name = |i| if taken == Some(i) { "a7".to_owned() } else { format!("{prefix}{i}") };
        (0..1_000).map(|i| NewItem { name: name(i), price: None }).collect()
    };
    let insert = |rows| diesel::insert_into(items::table).values(rows);
    let count = || items::table.count().get_result::<i64>(&mut test.plain("a")).unwrap();
    assert_eq!(insert(rows("a", None)).execute_at_once(&mut conn), Ok(1_000));
    for taken in [0, 1, 500, 998, 999] {
        let error = insert(rows("b", Some(taken))).execute_at_once(&mut conn).unwrap_err();
        assert!(
            matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
            "{error:?}"
        );
        assert_eq!(count(), 1_000);
    }
    conn.transaction(|conn| {
        insert(rows("c", None)).execute_at_once(conn)?;
        insert(rows("d", Some(600))).execute_at_once(conn).unwrap_err();
        insert(rows("e", None)).execute_at_once(conn)
    })
    .unwrap();
    assert_eq!(count(), 3_000);
    let said = diesel::select((last_insert_rowid(), changes())).get_result::<(i64, i64)>(&mut conn);
    assert_eq!(said, Ok((3_000, 1)));
    let priced = items::table.filter(items::price.is_not_null()).count();
    assert_eq!(priced.get_result::<i64>(&mut test.plain("a")), Ok(0));
}

#[test]
fn m6_an_unreachable_primary_is_typed_within_the_deadline() {
    let mut test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.forward_timeout(Duration::from_millis(400))
    });
    test.schema(SCHEMA);
    test.stop("a");
    let mut conn = test.conn("b");
    let mut write =
        || diesel::insert_into(items::table).values(items::name.eq("x")).execute(&mut conn);
    // The connection may break during the first write, whose outcome is then unknown.
    write().unwrap_err();
    let started = Instant::now();
    let error = write().unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Unreachable), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(names(&mut conn).is_empty(), "reads go on");
}

#[test]
fn m6_no_known_primary_is_typed_within_the_primary_timeout() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.primary_timeout(Duration::from_millis(300))
    });
    test.schema(SCHEMA);
    test.cluster.lose_primary().unwrap();
    litefs_tests::wait_until("nobody is primary", || {
        test.litefs("b").role() == litefs_diesel::core::Role::Unknown
    });
    let started = Instant::now();
    let mut conn = test.conn("b");
    let error = diesel::insert_into(items::table)
        .values(items::name.eq("x"))
        .execute(&mut conn)
        .unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::NoPrimary), "{error}");
    assert!(
        started.elapsed() >= Duration::from_millis(300)
            && started.elapsed() < Duration::from_secs(3)
    );
    assert!(names(&mut conn).is_empty(), "reads go on");
}

#[test]
fn m6_a_write_waits_for_a_primary_that_appears_in_time() {
    let test = test_cluster();
    test.cluster.lose_primary().unwrap();
    for node in ["a", "b"] {
        let lost = || test.litefs(node).role() == litefs_diesel::core::Role::Unknown;
        litefs_tests::wait_until("nobody is primary", lost);
    }
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            diesel::insert_into(items::table)
                .values(items::name.eq("x"))
                .execute(&mut test.conn("b"))
        });
        test.cluster.promote("a").unwrap();
        assert_eq!(write.join().unwrap(), Ok(1));
    });
}

/// The error of a statement, as a comparable value.
fn failure(
    conn: &mut impl Connection<Backend = diesel::sqlite::Sqlite>,
    sql: &str,
) -> (String, String) {
    match diesel::sql_query(sql).execute(conn).unwrap_err() {
        Error::DatabaseError(kind, information) => {
            (format!("{kind:?}"), information.message().to_owned())
        }
        other => (String::new(), format!("{other:?}")),
    }
}

#[test]
fn m7_errors_equal_those_of_plain_sqlite() {
    let test = test_cluster();
    let mut plain = SqliteConnection::establish(":memory:").unwrap();
    plain.batch_execute(SCHEMA).unwrap();
    let mut conn = test.conn("b");
    for sql in ["PRAGMA foreign_keys = ON", "INSERT INTO items (id, name) VALUES (1, 'taken')"] {
        plain.batch_execute(sql).unwrap();
        conn.batch_execute(sql).unwrap();
    }
    for (sql, kind) in [
        ("INSERT INTO items (name) VALUES ('taken')", "UniqueViolation"),
        ("INSERT INTO items (id, name) VALUES (1, 'new')", "UniqueViolation"),
        ("INSERT INTO parts (item) VALUES (99)", "ForeignKeyViolation"),
        ("INSERT INTO items (name) VALUES (NULL)", "NotNullViolation"),
        ("INSERT INTO items (name, price) VALUES ('x', -1)", "CheckViolation"),
        ("INSERT INTO items (nothing) VALUES (1)", "Unknown"),
        ("INSERT INTO nowhere VALUES (1)", "Unknown"),
        ("INSERT INTO items VALUES (1", "Unknown"),
        ("INSERT INTO items (id, name) VALUES ('not a number', 'x')", "Unknown"),
        ("CREATE TABLE items (x)", "Unknown"),
        ("gibberish", "Unknown"),
    ] {
        let expected = failure(&mut plain, sql);
        assert_eq!(expected.0, kind, "{sql}");
        assert_eq!(failure(&mut conn, sql), expected, "{sql}");
    }
    assert_eq!(names(&mut test.plain("a")), ["taken"]);
}

#[test]
fn m8_without_litefs_everything_is_local() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let litefs = LiteFs::builder(path.to_str().unwrap()).start().unwrap();
    let mut conn = litefs.establish().unwrap();
    conn.batch_execute(SCHEMA).unwrap();
    conn.transaction(|conn| {
        diesel::insert_into(items::table).values(items::name.eq("x")).execute(conn)
    })
    .unwrap();
    assert_eq!(names(&mut conn), ["x"]);
    assert_eq!((litefs.round_trips(), litefs.rpc_address()), (0, None));
}

#[test]
fn m10_a_call_can_override_the_route() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let trips = || test.litefs("b").round_trips();
    conn.on_primary(|conn| -> QueryResult<()> {
        assert!(names(conn).is_empty());
        Ok(())
    })
    .unwrap();
    assert_eq!(trips(), 1);
    let error = conn
        .on_local(|conn| {
            diesel::insert_into(items::table).values(items::name.eq("x")).execute(conn)
        })
        .unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(trips(), 1);
    assert_eq!(
        diesel::insert_into(items::table).values(items::name.eq("x")).execute(&mut conn),
        Ok(1)
    );
    assert_eq!(trips(), 2);
}

/// A router that sends the reads of one table to the primary.
struct Fresh;

impl Router for Fresh {
    fn route(&self, situation: &Situation<'_>) -> Route {
        if situation.sql().contains("everything") { Route::Primary } else { Route::Local }
    }
}

#[test]
fn m11_built_in_and_custom_routers() {
    let with = |router: fn(litefs_diesel::LiteFsBuilder) -> litefs_diesel::LiteFsBuilder| {
        let test = TestCluster::configured(&["a", "b"], |_, builder| router(builder));
        test.schema(SCHEMA);
        test
    };
    let everywhere = with(|builder| builder.router(EverythingOnPrimary));
    names(&mut everywhere.conn("b"));
    assert_eq!(everywhere.litefs("b").round_trips(), 1);

    let rejecting = with(|builder| builder.router(RejectWrites));
    let error = diesel::insert_into(items::table)
        .values(items::name.eq("x"))
        .execute(&mut rejecting.conn("b"));
    assert_eq!(Failure::of(&error.unwrap_err()), Some(Failure::Rejected));
    assert_eq!(
        diesel::insert_into(items::table)
            .values(items::name.eq("x"))
            .execute(&mut rejecting.conn("a")),
        Ok(1)
    );

    let own = with(|builder| builder.router(Fresh));
    let mut conn = own.conn("b");
    names(&mut conn);
    assert_eq!(own.litefs("b").round_trips(), 0);
    let _: i64 = everything::table.count().get_result(&mut conn).unwrap();
    assert_eq!(own.litefs("b").round_trips(), 1);
}

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

diesel::define_sql_function! { fn last_insert_rowid() -> BigInt; }
diesel::define_sql_function! { fn changes() -> BigInt; }

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

#[test]
fn m16_a_write_rejected_after_a_demotion_is_forwarded() {
    // Node a learns of its demotion from the rejection of its own write.
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        let deaf = litefs_diesel::core::Detectors {
            primary_file: false,
            ..litefs_diesel::core::Detectors::ALL
        };
        builder.tracker(|tracker| tracker.detectors(deaf).poll_interval(Duration::from_secs(60)))
    });
    test.schema(SCHEMA);
    let (mut counted, mut returned, mut script) = (test.conn("a"), test.conn("a"), test.conn("a"));
    let item = |name: &'static str| diesel::insert_into(items::table).values(items::name.eq(name));
    item("before").execute(&mut counted).unwrap();
    test.sync();
    test.cluster
        .node("a")
        .set_event_stream_fault(litefs_testkit::EventStreamFault::Silent)
        .unwrap();
    test.cluster.promote("b").unwrap();
    assert_eq!(
        test.litefs("a").role(),
        litefs_diesel::core::Role::Primary,
        "it has not learned of its demotion"
    );
    let written: String =
        item("returned").returning(items::name).get_result(&mut returned).unwrap();
    assert_eq!(written, "returned");
    assert!(matches!(test.litefs("a").role(), litefs_diesel::core::Role::Replica { .. }));
    assert_eq!(item("counted").execute(&mut counted), Ok(1));
    script.batch_execute("INSERT INTO items (name) VALUES ('script')").unwrap();
    assert_eq!(names(&mut test.plain("b")), ["before", "returned", "counted", "script"]);
    assert_eq!(names(&mut counted), ["before", "returned", "counted", "script"]);
}

#[test]
fn a_local_commit_that_litefs_drops_is_not_acknowledged() {
    type Write = fn(&mut litefs_diesel::LiteFsConnection) -> QueryResult<()>;
    let item = || diesel::insert_into(items::table).values(items::name.eq("lost"));
    let writes: [Write; 4] = [
        |conn| {
            diesel::insert_into(items::table).values(items::name.eq("lost")).execute(conn).map(drop)
        },
        |conn| {
            let insert = diesel::insert_into(items::table).values(items::name.eq("lost"));
            insert.returning(items::id).get_result::<i32>(conn).map(drop)
        },
        |conn| conn.batch_execute("INSERT INTO items (name) VALUES ('lost')"),
        |conn| {
            conn.transaction(|conn| {
                diesel::sql_query("INSERT INTO items (name) VALUES ('lost')")
                    .execute(conn)
                    .map(drop)
            })
        },
    ];
    for (way, write) in writes.into_iter().enumerate() {
        let test = test_cluster();
        let mut conn = test.conn("a");
        item().execute(&mut conn).unwrap();
        diesel::delete(items::table).execute(&mut conn).unwrap();
        test.sync();
        test.cluster.node("a").drop_next_commit().unwrap();
        let Err(error) = write(&mut conn) else { panic!("way {way} was acknowledged") };
        assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown), "{error}");
        assert!(names(&mut test.plain("b")).is_empty());
    }
}

#[test]
fn writes_continue_through_promotions_back_and_forth() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let mut writer = test.conn(from);
        test.cluster.promote(to).unwrap();
        let name = format!("x{round}");
        let insert = || {
            diesel::insert_into(items::table).values(items::name.eq(&name)).returning(items::name)
        };
        let written = insert().get_result::<String>(&mut writer);
        test.wait_for_roles();
        test.sync();
        match written {
            Ok(written) => assert_eq!(written, name),
            // A commit during the change of the role is not confirmed: check, then write the
            // missing row.
            Err(error) if Failure::of(&error) == Some(Failure::OutcomeUnknown) => {
                if !names(&mut writer).contains(&name) {
                    insert().get_result::<String>(&mut writer).unwrap();
                    test.sync();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(names(&mut conn), ["x0", "x1", "x2", "x3"]);
}

#[test]
fn pragmas_that_would_break_the_replicas_are_refused() {
    let test = test_cluster();
    for node in ["a", "b"] {
        let error = test.conn(node).batch_execute("PRAGMA journal_mode = DELETE").unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
        let error = diesel::sql_query("PRAGMA locking_mode = EXCLUSIVE")
            .execute(&mut test.conn(node))
            .unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    }
}

#[test]
fn what_cannot_run_on_the_primary_is_refused_with_a_reason() {
    let test = test_cluster();
    let error = test
        .conn("b")
        .on_primary(|conn| diesel::sql_query("SELECT load_extension('evil')").execute(conn))
        .unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    let limits = {
        let mut limits = litefs_rpc::Limits::default();
        limits.statement = 100;
        limits
    };
    let small = TestCluster::configured(&["a", "b"], |_, builder| builder.limits(limits.clone()));
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(200));
    let error = diesel::sql_query(long).execute(&mut small.conn("b")).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::TooLarge), "{error}");
    assert_eq!(small.litefs("b").round_trips(), 0, "refused before it is sent");
}

#[test]
fn a_path_finds_its_handle_and_a_second_handle_fails() {
    let test = test_cluster();
    let url = test.cluster.node("b").database_url(DATABASE);
    let mut conn = litefs_diesel::LiteFsConnection::establish(&url).unwrap();
    diesel::insert_into(items::table).values(items::name.eq("x")).execute(&mut conn).unwrap();
    assert_eq!(test.litefs("b").round_trips(), 1, "it belongs to the handle that was started");
    // D17
    let second = test.builder("b").start();
    assert!(matches!(second, Err(litefs_diesel::StartError::AlreadyStarted(_))), "{second:?}");
}
