//! Transactions that conflict with others, and their retries.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::TestCluster;

use super::{SCHEMA, all, counters, insert, test_cluster};

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
