//! The session of a transaction on the primary: its lock and its end.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::{TestCluster, wait_until};

use super::{SCHEMA, all, insert, test_cluster};

#[test]
fn x6_a_transaction_past_its_idle_limit_is_rolled_back() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        let mut limits = litefs_rpc::Limits::default();
        limits.session_idle = Duration::from_millis(100);
        builder.limits(limits)
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    let error = conn
        .transaction(|conn| {
            insert(conn, 1)?;
            // The lock is free again only once the session has been rolled back.
            let mut other = test.conn("a");
            other.batch_execute("PRAGMA busy_timeout = 5000")?;
            insert(&mut other, 7)?;
            insert(conn, 2).map(drop)
        })
        .unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::TransactionLost), "{error}");
    assert!(error.to_string().contains("idle"), "{error}");
    assert_eq!(
        all(&mut test.plain("a")),
        [(1, 7)],
        "neither statement was applied, in or out of the transaction"
    );
    insert(&mut conn, 8).unwrap();
}

#[test]
fn x7_a_connection_dropped_in_the_middle_frees_the_lock_at_once() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("BEGIN").unwrap();
    insert(&mut conn, 1).unwrap();
    drop(conn);
    let started = std::time::Instant::now();
    insert(&mut test.conn("b"), 2).unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(all(&mut test.plain("a")), [(1, 2)]);
}

#[test]
fn x8_a_demotion_in_the_middle_rolls_the_transaction_back() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let error = conn
        .transaction(|conn| {
            insert(conn, 1)?;
            test.cluster.lose_primary().unwrap();
            wait_until("the demotion", || test.litefs("a").role() == litefs_core::Role::Unknown);
            insert(conn, 2).map(drop)
        })
        .unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::TransactionLost), "{error}");
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    assert!(all(&mut conn).is_empty());
    insert(&mut conn, 3).unwrap();
}

#[test]
fn x9_the_first_statement_of_an_immediate_one_locks() {
    let test = test_cluster();
    let locked = || {
        let busy =
            test.plain("a").batch_execute("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE").unwrap_err();
        assert!(busy.to_string().contains("locked"), "{busy}");
    };
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        let write = |conn: &mut LiteFsConnection| {
            all(conn);
            locked();
            assert_eq!(
                conn.immediate_transaction(|_| QueryResult::Ok(())),
                Err(Error::AlreadyInTransaction)
            );
            insert(conn, 1)
        };
        conn.immediate_transaction(write).unwrap();
        conn.exclusive_transaction(write).unwrap();
        let failed = conn.immediate_transaction(|conn| {
            insert(conn, 2)?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(failed, Err(Error::RollbackTransaction));
        test.sync();
    }
    assert_eq!(all(&mut test.plain("a")).len(), 4);
}
