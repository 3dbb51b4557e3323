//! Nothing is acknowledged that SQLite or LiteFS has not committed, and no connection continues in
//! a transaction whose state it does not know.

use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;
use litefs_diesel::{BatchInsertDsl, Delivery, Failure, LiteFsConnection};
use litefs_tests::{DATABASE, TestCluster};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn test_cluster(names: &[&str]) -> TestCluster {
    let test = TestCluster::start(names);
    test.schema(SCHEMA);
    test
}

fn count(conn: &mut LiteFsConnection) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

fn insert(id: i32) -> impl diesel::query_builder::QueryFragment<diesel::sqlite::Sqlite> {
    diesel::insert_into(notes::table).values((notes::id.eq(id), notes::text.eq("x")))
}

/// Makes LiteFS drop the next commit of "a" without a notice to "a".
fn drop_next_commit_silently(test: &TestCluster) {
    test.cluster.control("a").unwrap().forget_next_commit().unwrap();
}

fn assert_unknown<T: std::fmt::Debug>(result: QueryResult<T>) {
    let error = result.expect_err("LiteFS has dropped the commit");
    assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown), "{error}");
}

#[test]
fn f19_a_batch_on_the_primarys_own_file_is_confirmed() {
    let test = test_cluster(&["a", "b"]);
    let mut conn = test.conn("a");
    drop_next_commit_silently(&test);
    assert_unknown(conn.execute_batch(&[&insert(1), &insert(2)]));
}

#[test]
fn f19_rows_inserted_at_once_on_the_primary_are_confirmed() {
    let test = test_cluster(&["a", "b"]);
    let mut conn = test.conn("a");
    drop_next_commit_silently(&test);
    let rows: Vec<_> = (1..4).map(|id| (notes::id.eq(id), notes::text.eq("x"))).collect();
    assert_unknown(diesel::insert_into(notes::table).values(rows).execute_at_once(&mut conn));
}

#[test]
fn rows_set_to_their_old_values_need_no_commit() {
    let test = test_cluster(&["a", "b"]);
    test.conn("a").execute_batch(&[&insert(1)]).unwrap();
    let a = test.cluster.control("a").unwrap();
    let before = a.position(DATABASE);
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        let same = diesel::update(notes::table).set(notes::text.eq("x"));
        assert_eq!(same.clone().execute(&mut conn), Ok(1), "on {node}");
        assert_eq!(conn.execute_batch(&[&same]), Ok(vec![1]), "on {node}");
    }
    let after = a.position(DATABASE);
    assert!(after.txid >= before.txid);
}

#[test]
fn a_transaction_whose_first_read_fails_leaves_nothing_open() {
    let test = test_cluster(&["a", "b"]);
    let b = test.cluster.control("b").unwrap();
    let mut conn = test.conn("b");
    assert_eq!(count(&mut conn), 0);
    b.refuse_locks(true).unwrap();
    let read = conn.transaction(|conn| notes::table.count().get_result::<i64>(conn));
    assert!(read.is_err(), "{read:?}");
    b.refuse_locks(false).unwrap();
    assert!(conn.ping().is_ok() && !conn.is_broken());
    // Writes of the connection after a promotion are committed; they are not part of the open
    // transaction.
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    diesel::insert_into(notes::table).values(notes::text.eq("x")).execute(&mut conn).unwrap();
    assert!(conn.acknowledgement().is_some());
    drop(conn);
    assert_eq!(count(&mut test.conn("b")), 1);
    test.cluster.wait_for_sync(Duration::from_secs(10)).unwrap();
    test.conn("a").execute_batch(&[&insert(7)]).unwrap();
}

#[test]
fn a_connection_with_an_open_transaction_is_not_pooled() {
    let test = test_cluster(&["a", "b"]);
    for node in ["a", "b"] {
        for begin in ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT own"] {
            let mut conn = test.conn(node);
            conn.batch_execute(begin).unwrap();
            assert!(conn.is_broken(), "{begin} on {node}");
            conn.batch_execute(if begin.starts_with('B') { "COMMIT" } else { "RELEASE own" })
                .unwrap();
            assert!(!conn.is_broken(), "after {begin} on {node}");
        }
        let mut conn = test.conn(node);
        conn.begin_test_transaction().unwrap();
        assert!(!conn.is_broken(), "Diesel's own rule for a test transaction");
    }
}

#[test]
fn the_error_that_made_sqlite_roll_back_is_returned() {
    let test = test_cluster(&["a", "b"]);
    test.conn("a").execute_batch(&[&insert(1)]).unwrap();
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        test.sync();
        let taken = "INSERT OR ROLLBACK INTO notes VALUES (1, 'taken')";
        let result = conn.transaction(|conn| {
            diesel::sql_query("INSERT INTO notes VALUES (2, 'y')").execute(conn)?;
            diesel::sql_query(taken).execute(conn)
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("UNIQUE"), "on {node}: {error}");
        assert!(!conn.is_broken(), "on {node}");
        // A caller that continues in spite of it writes nothing outside of the transaction.
        let result = conn.transaction(|conn| {
            diesel::sql_query(taken).execute(conn).unwrap_err();
            diesel::sql_query("INSERT INTO notes VALUES (3, 'z')").execute(conn)
        });
        assert_eq!(Failure::of(&result.unwrap_err()), Some(Failure::TransactionLost), "on {node}");
        assert_eq!(count(&mut conn), 1, "on {node}");
        assert!(!conn.is_broken(), "on {node}");
    }
}

const TRIGGER: &str = "SELECT diesel_manage_updated_at('stamped')";

fn triggers(test: &TestCluster) -> i64 {
    let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
    diesel::dsl::sql::<diesel::sql_types::BigInt>(count).get_result(&mut test.plain("a")).unwrap()
}

#[test]
fn a_select_with_a_writing_function_is_a_write() {
    type Run = fn(&mut LiteFsConnection) -> QueryResult<()>;
    let ways: [Run; 4] = [
        |conn| diesel::sql_query(TRIGGER).execute(conn).map(drop),
        |conn| diesel::dsl::sql::<diesel::sql_types::Integer>(TRIGGER).load::<i32>(conn).map(drop),
        |conn| conn.batch_execute(TRIGGER),
        |conn| conn.on_primary(|conn| diesel::sql_query(TRIGGER).execute(conn).map(drop)),
    ];
    for node in ["a", "b"] {
        for (at, run) in ways.iter().enumerate() {
            let test = test_cluster(&["a", "b"]);
            test.schema("CREATE TABLE stamped (id INTEGER PRIMARY KEY, updated_at TIMESTAMP)");
            run(&mut test.conn(node)).unwrap_or_else(|error| panic!("way {at} on {node}: {error}"));
            assert_eq!(triggers(&test), 1, "way {at} on {node}");
        }
    }
}

#[test]
fn a_write_inside_a_select_on_the_primary_is_confirmed() {
    let test = test_cluster(&["a", "b"]);
    test.schema("CREATE TABLE stamped (id INTEGER PRIMARY KEY, updated_at TIMESTAMP)");
    let mut conn = test.conn("a");
    drop_next_commit_silently(&test);
    assert_unknown(diesel::sql_query(TRIGGER).execute(&mut conn));
}

#[test]
fn a_forwarded_commit_that_litefs_drops_is_unknown() {
    let test = test_cluster(&["a", "b"]);
    let mut conn = test.conn("b");
    drop_next_commit_silently(&test);
    let write = conn.with_delivery(Delivery::AtMostOnce, insert_one);
    assert_unknown(write);
    drop_next_commit_silently(&test);
    let transaction = conn.with_delivery(Delivery::AtMostOnce, |conn| conn.transaction(insert_one));
    assert_unknown(transaction);
}

fn insert_one(conn: &mut LiteFsConnection) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq("x")).execute(conn)
}

#[test]
fn a_custom_function_may_write_on_any_node() {
    // SQLite knows nothing of a function's own connection; a function that fails on a replica may
    // have tried to write.
    let test = TestCluster::configured(&["a", "b"], |node, builder| {
        let writable = node == "a";
        builder.on_connection(move |conn| {
            stamp_utils::register_nondeterministic_impl(conn, move |number: i32| {
                assert!(writable, "attempt to write a readonly database");
                number + 1
            })
        })
    });
    test.schema(SCHEMA);
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        assert_eq!(diesel::select(stamp(1)).get_result(&mut conn), Ok(2), "on {node}");
        assert_eq!(diesel::sql_query("SELECT stamp(1)").execute(&mut conn), Ok(0), "on {node}");
        conn.batch_execute("SELECT stamp(1)").unwrap();
        conn.transaction(|conn| {
            assert_eq!(count(conn), 0);
            diesel::select(stamp(2)).get_result::<i32>(conn)
        })
        .unwrap();
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn stamp(number: diesel::sql_types::Integer) -> diesel::sql_types::Integer;
}

/// Another connection holds the write lock while the next write waits, and commits meanwhile.
fn during_another_commit<T>(bed: &TestCluster, write: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    let mut other = bed.plain("a");
    other
        .batch_execute(
            "PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE; INSERT INTO notes VALUES (900, 'x')",
        )
        .unwrap();
    let a = bed.cluster.control("a").unwrap();
    let waiting = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            waiting.wait();
            write()
        });
        waiting.wait();
        // Whether its own position is read before or after the other commit: both must be detected.
        std::thread::sleep(Duration::from_millis(150));
        a.forget_commit_after(1).unwrap();
        other.batch_execute("COMMIT").unwrap();
        written.join().unwrap()
    })
}

#[test]
fn the_commit_of_another_connection_confirms_nothing() {
    let bed = test_cluster(&["a", "b"]);
    let mut conn = bed.conn("a");
    assert_unknown(during_another_commit(&bed, || insert_one(&mut conn)));
}

#[test]
fn each_commit_of_a_script_is_confirmed() {
    let bed = test_cluster(&["a", "b"]);
    let mut conn = bed.conn("a");
    drop_next_commit_silently(&bed);
    assert_unknown(
        conn.batch_execute("INSERT INTO notes VALUES (1, 'x'); INSERT INTO notes VALUES (2, 'x')"),
    );
}

#[test]
fn an_outcome_that_litefs_dropped_is_not_returned() {
    let bed = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.forward_timeout(Duration::from_millis(500))
    });
    bed.schema(SCHEMA);
    let mut conn = bed.conn("b");
    drop_next_commit_silently(&bed);
    assert_unknown(insert_one(&mut conn));
}

#[test]
fn the_primary_does_not_answer_with_an_outcome_litefs_dropped() {
    let bed = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.forward_timeout(Duration::from_millis(500))
    });
    bed.schema(SCHEMA);
    let mut conn = bed.conn("b");
    drop_next_commit_silently(&bed);
    let error = insert_one(&mut conn).unwrap_err();
    let write = Failure::write_of(&error).unwrap();
    // To look for the outcome takes the write lock, and LiteFS could take the commit then.
    drop_next_commit_silently(&bed);
    assert_unknown(bed.litefs("a").outcome(write));
    // Other work that finds the dropped row and changes nothing is not confirmed either.
    let mut conn = bed.conn("a");
    drop_next_commit_silently(&bed);
    assert_unknown(diesel::update(notes::table).set(notes::text.eq("x")).execute(&mut conn));
}

#[test]
fn a_transaction_with_a_temporary_table_is_confirmed() {
    let bed = test_cluster(&["a", "b"]);
    let mut conn = bed.conn("a");
    let result = conn.transaction(|conn| {
        conn.batch_execute("CREATE TEMP TABLE own (x); INSERT INTO own VALUES (1)")?;
        insert_one(conn)?;
        drop_next_commit_silently(&bed);
        QueryResult::Ok(())
    });
    assert_unknown(result);
}

#[test]
fn a_script_that_rolls_back_commits_nothing() {
    let bed = test_cluster(&["a", "b"]);
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
                INSERT INTO notes SELECT i, printf('%.2000c', 'x') FROM n";
    let mut conn = bed.conn("a");
    conn.batch_execute("PRAGMA cache_size = 10").unwrap();
    conn.batch_execute(&format!("BEGIN; {fill}; ROLLBACK")).unwrap();
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn a_failed_script_leaves_its_transaction_open() {
    let bed = test_cluster(&["a", "b"]);
    bed.conn("a").execute_batch(&[&insert(1)]).unwrap();
    let script =
        "BEGIN; INSERT INTO notes VALUES (2, 'x'); INSERT INTO notes VALUES (1, 'x'); COMMIT";
    let mut conn = bed.conn("a");
    assert!(conn.batch_execute(script).is_err());
    assert!(conn.is_broken(), "Diesel does not know the transaction");
    drop_next_commit_silently(&bed);
    assert_unknown(conn.batch_execute("COMMIT"));
}

#[test]
fn a_script_that_fails_in_a_read_releases_its_locks() {
    let bed = test_cluster(&["a", "b"]);
    let mut conn = bed.conn("b");
    let script = "BEGIN; SELECT * FROM notes; SELECT * FROM nowhere; COMMIT";
    assert!(conn.batch_execute(script).is_err());
    assert_eq!(Failure::of(&insert_one(&mut conn).unwrap_err()), Some(Failure::TransactionLost));
    bed.conn("a").execute_batch(&[&insert(1)]).unwrap();
    bed.cluster.wait_for_sync(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_script_does_not_end_the_transaction_around_it() {
    let bed = test_cluster(&["a", "b"]);
    for node in ["a", "b"] {
        let mut conn = bed.conn(node);
        let result = conn.transaction(|conn| {
            insert_one(conn)?;
            conn.batch_execute("SAVEPOINT s; INSERT INTO notes (text) VALUES ('y'); COMMIT")
        });
        assert_eq!(Failure::of(&result.unwrap_err()), Some(Failure::Denied), "on {node}");
        assert_eq!(count(&mut conn), 0, "on {node}");
    }
}
