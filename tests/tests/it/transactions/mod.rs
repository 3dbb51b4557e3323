//! Transactions from replicas: scenarios X1 to X10 of the acceptance list.

mod conflicts;
mod sessions;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::LiteFsConnection;
use litefs_tests::TestCluster;

diesel::table! { counters { id -> Integer, n -> Integer, } }

const SCHEMA: &str =
    "CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n < 1000000))";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn all(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<(i32, i32)> {
    counters::table.order(counters::id).load(conn).unwrap()
}

fn insert(conn: &mut LiteFsConnection, n: i32) -> QueryResult<i32> {
    diesel::insert_into(counters::table)
        .values(counters::n.eq(n))
        .returning(counters::id)
        .get_result(conn)
}

#[test]
fn x1_a_transaction_that_only_reads_stays_on_the_node() {
    let test = test_cluster();
    test.schema("INSERT INTO counters VALUES (1, 10)");
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(all(conn), [(1, 10)]);
        // One snapshot: later writes are not visible until it ends.
        insert(&mut test.conn("a"), 11)?;
        assert_eq!(all(conn), [(1, 10)]);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(test.litefs("b").round_trips(), 0);
    test.sync();
    assert_eq!(all(&mut conn).len(), 2);
}

#[test]
fn x2_a_writing_transaction_is_atomic() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let ids = conn
        .transaction(|conn| {
            let ids = (insert(conn, 1)?, insert(conn, 2)?);
            assert_eq!(all(conn), [(1, 1), (2, 2)]);
            assert!(all(&mut test.plain("a")).is_empty(), "not committed yet");
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert_eq!(ids, (1, 2));
    assert_eq!(all(&mut conn), [(1, 1), (2, 2)], "what was committed is read back");
    let failed = conn.transaction(|conn| {
        insert(conn, 3)?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(failed, Err(Error::RollbackTransaction));
    assert_eq!(all(&mut test.plain("a")).len(), 2);
}

#[test]
fn x2_a_failed_statement_leaves_the_transaction_open() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        let error = insert(conn, 2_000_000).unwrap_err();
        assert!(
            matches!(error, Error::DatabaseError(DatabaseErrorKind::CheckViolation, _)),
            "{error:?}"
        );
        insert(conn, 1)?;
        assert!(insert(conn, 2_000_000).is_err());
        insert(conn, 2).map(drop)
    })
    .unwrap();
    assert_eq!(all(&mut test.plain("a")), [(1, 1), (2, 2)]);
}

#[test]
fn x3_nested_transactions_work_before_and_after_the_move() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert!(all(conn).is_empty());
        // Opened before the move to the primary, rolled back after it.
        let inner = conn.transaction(|conn| {
            insert(conn, 1)?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(inner, Err(Error::RollbackTransaction));
        assert!(all(conn).is_empty());
        insert(conn, 2)?;
        conn.transaction(|conn| insert(conn, 3))?;
        let inner = conn.transaction(|conn| {
            insert(conn, 4)?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(inner, Err(Error::RollbackTransaction));
        QueryResult::Ok(())
    })
    .unwrap();
    let values: Vec<i32> = all(&mut test.plain("a")).into_iter().map(|(_, n)| n).collect();
    assert_eq!(values, [2, 3]);
}

#[test]
fn x10_test_transactions_leave_nothing_behind() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.test_transaction::<_, Error, _>(|conn| {
        insert(conn, 1)?;
        assert_eq!(all(conn), [(1, 1)]);
        Ok(())
    });
    conn.begin_test_transaction().unwrap();
    insert(&mut conn, 2).unwrap();
    conn.transaction(|conn| insert(conn, 3)).unwrap();
    assert_eq!(all(&mut conn).len(), 2);
    drop(conn);
    insert(&mut test.conn("b"), 4).unwrap();
    assert_eq!(all(&mut test.plain("a")), [(1, 4)]);
}

#[test]
fn a_small_transaction_takes_at_most_four_round_trips() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        all(conn);
        insert(conn, 1)?;
        insert(conn, 2)
    })
    .unwrap();
    assert!(test.litefs("b").round_trips() <= 4, "{}", test.litefs("b").round_trips());
}
