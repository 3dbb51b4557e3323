//! Errors of forwarded statements.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use litefs_diesel::Failure;
use litefs_tests::TestCluster;

use super::{SCHEMA, failure, items, names, test_cluster};

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
    litefs_tests::wait_until("no primary", || {
        test.litefs("b").role() == litefs_core::Role::Unknown
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
        let lost = || test.litefs(node).role() == litefs_core::Role::Unknown;
        litefs_tests::wait_until("no primary", lost);
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
fn local_statements_are_refused_on_the_primary() {
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
