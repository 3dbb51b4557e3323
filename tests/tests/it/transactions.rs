//! Transactions from replicas: scenarios X1 to X10 of the acceptance list.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::{TestCluster, wait_until};

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
fn x4_a_transaction_with_current_reads_commits() {
    let test = test_cluster();
    test.schema("INSERT INTO counters VALUES (1, 10)");
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        let n: i32 = counters::table.find(1).select(counters::n).get_result(conn)?;
        diesel::update(counters::table.find(1)).set(counters::n.eq(n + 1)).execute(conn)
    })
    .unwrap();
    assert_eq!(all(&mut conn), [(1, 11)]);
}

#[test]
fn x4_a_transaction_with_stale_reads_fails_and_retries() {
    let test = test_cluster();
    test.schema("INSERT INTO counters VALUES (1, 10)");
    let mut conn = test.conn("b");
    let mut interfere = true;
    let mut increment = |conn: &mut LiteFsConnection| {
        conn.transaction(|conn| {
            let n: i32 = counters::table.find(1).select(counters::n).get_result(conn)?;
            if std::mem::take(&mut interfere) {
                diesel::update(counters::table)
                    .set(counters::n.eq(20))
                    .execute(&mut test.conn("a"))?;
            }
            diesel::update(counters::table.find(1)).set(counters::n.eq(n + 1)).execute(conn)
        })
    };
    let error = increment(&mut conn).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::SnapshotMoved), "{error}");
    assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)));
    test.sync();
    increment(&mut conn).unwrap();
    assert_eq!(all(&mut conn), [(1, 21)]);
}

#[test]
fn x5_two_replicas_lose_no_increment_of_a_counter() {
    const EACH: i32 = 1_000;
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    test.schema("INSERT INTO counters VALUES (1, 0)");
    std::thread::scope(|scope| {
        for node in ["b", "c"] {
            let mut conn = test.conn(node);
            scope.spawn(move || {
                for _ in 0..EACH {
                    conn.transaction_with_retry(10_000, |conn| {
                        let n: i32 =
                            counters::table.find(1).select(counters::n).get_result(conn)?;
                        diesel::update(counters::table.find(1))
                            .set(counters::n.eq(n + 1))
                            .execute(conn)
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(all(&mut test.plain("a")), [(1, 2 * EACH)]);
}

/// On the primary SQLite itself detects the conflict, on replicas the session does; both retry, and
/// every thread makes progress.
#[test]
fn x5_sixteen_threads_on_three_nodes_lose_no_increment() {
    const THREADS: usize = 16;
    const EACH: i32 = 60;
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    test.schema("INSERT INTO counters VALUES (1, 0)");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut conn = test.conn(["a", "b", "c"][thread % 3]);
            scope.spawn(move || {
                for _ in 0..EACH {
                    conn.transaction_with_retry(100, |conn| {
                        let n: i32 =
                            counters::table.find(1).select(counters::n).get_result(conn)?;
                        diesel::update(counters::table.find(1))
                            .set(counters::n.eq(n + 1))
                            .execute(conn)
                    })
                    .unwrap();
                }
            });
        }
    });
    let total = i32::try_from(THREADS).unwrap() * EACH;
    assert_eq!(all(&mut test.plain("a")), [(1, total)]);
}

#[test]
fn x4_a_local_conflict_is_returned_and_retried() {
    let test = test_cluster();
    test.schema("INSERT INTO counters VALUES (1, 0)");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("laptop.db").display().to_string();
    let laptop = || LiteFsConnection::establish(&path).unwrap();
    laptop()
        .batch_execute(&format!(
            "PRAGMA journal_mode = WAL; {SCHEMA}; INSERT INTO counters VALUES (1, 0)"
        ))
        .unwrap();
    for (place, mut conn, mut other) in
        [("primary", test.conn("a"), test.conn("a")), ("laptop", laptop(), laptop())]
    {
        let (mut tries, mut errors) = (0, Vec::new());
        conn.transaction_with_retry(10, |conn| {
            let n: i32 = counters::table.find(1).select(counters::n).get_result(conn)?;
            tries += 1;
            if tries <= 2 {
                diesel::update(counters::table).set(counters::n.eq(n + 10)).execute(&mut other)?;
            }
            let written = diesel::update(counters::table).set(counters::n.eq(n + 1)).execute(conn);
            written.inspect_err(|error| errors.push(Failure::of(error)))
        })
        .unwrap();
        assert_eq!((tries, all(&mut conn)), (3, vec![(1, 21)]), "{place}");
        let expected = if place == "primary" { Some(Failure::SnapshotMoved) } else { None };
        assert_eq!(errors, [expected, expected], "{place}");
    }
}

#[test]
fn a_resolved_conflict_does_not_retry_the_transaction() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    conn.batch_execute("PRAGMA busy_timeout = 0").unwrap();
    let mut tries = 0;
    let result = conn.transaction_with_retry(5, |conn| {
        tries += 1;
        let mut holder = test.plain("a");
        holder.batch_execute("BEGIN IMMEDIATE")?;
        insert(conn, 1).unwrap_err();
        holder.batch_execute("ROLLBACK")?;
        insert(conn, 2)?;
        Err::<(), diesel::result::Error>(Error::RollbackTransaction)
    });
    assert_eq!((result, tries), (Err(Error::RollbackTransaction), 1));
    // Nor is a commit whose outcome is unknown.
    let mut tries = 0;
    let error = conn
        .transaction_with_retry(5, |conn| {
            tries += 1;
            let mut holder = test.plain("a");
            holder.batch_execute("BEGIN IMMEDIATE")?;
            insert(conn, 3).unwrap_err();
            holder.batch_execute("ROLLBACK")?;
            test.cluster.node("a").drop_next_commit().unwrap();
            insert(conn, 4)
        })
        .unwrap_err();
    assert_eq!(tries, 1, "{error}");
}

#[test]
fn a_transaction_that_finds_the_primary_locked_is_retried() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let mut holder = test.plain("a");
    let mut tries = 0;
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    conn.transaction_with_retry(2, |conn| {
        tries += 1;
        if tries == 2 {
            holder.batch_execute("ROLLBACK")?;
        }
        insert(conn, 1)
    })
    .unwrap();
    assert_eq!(tries, 2);
}

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
            wait_until("the demotion", || {
                test.litefs("a").role() == litefs_diesel::core::Role::Unknown
            });
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
fn x9_an_immediate_transaction_locks_the_primary_at_its_first_statement() {
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
