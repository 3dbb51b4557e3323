//! What a transaction on a replica's snapshot must not get wrong: corners of scenarios X13 to X24.

use std::time::Duration;

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Integer};
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_testkit::{EventStreamFault, InfoFault};
use litefs_tests::TestCluster;

diesel::table! { accounts { id -> Integer, balance -> Integer, } }

const SCHEMA: &str = "
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE entries (id INTEGER PRIMARY KEY, what TEXT NOT NULL UNIQUE);
    INSERT INTO accounts VALUES (1, 100), (2, 0), (3, 7);
    INSERT INTO entries VALUES (1, 'first');
";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn balance(conn: &mut LiteFsConnection, id: i32) -> QueryResult<i32> {
    accounts::table.find(id).select(accounts::balance).first(conn)
}

fn add(conn: &mut LiteFsConnection, id: i32, amount: i32) -> QueryResult<usize> {
    diesel::update(accounts::table.find(id))
        .set(accounts::balance.eq(accounts::balance + amount))
        .execute(conn)
}

fn on_primary(test: &TestCluster, sql: &str) {
    test.plain("a").batch_execute(sql).unwrap();
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number<C>(conn: &mut C, sql: &str) -> QueryResult<i64>
where
    C: LoadConnection + Connection<Backend = Sqlite>,
{
    diesel::sql_query(sql).get_result::<Number>(conn).map(|row| row.n)
}

fn balances(test: &TestCluster, node: &str) -> Vec<i32> {
    let all = accounts::table.select(accounts::balance).order(accounts::id);
    all.load(&mut test.plain(node)).unwrap()
}

#[track_caller]
fn is_conflict<T: std::fmt::Debug>(result: &QueryResult<T>) {
    let failure = result.as_ref().err().and_then(Failure::of);
    assert_eq!(failure, Some(Failure::SnapshotMoved), "{result:?}");
}

/// The local connection is as it was before a transaction that wrote to its snapshot.
#[track_caller]
fn is_clean(conn: &mut LiteFsConnection) {
    let of = |conn: &mut LiteFsConnection, pragma: &str| {
        number(conn, &format!("SELECT {pragma} AS n FROM pragma_{pragma}"))
    };
    assert!(R2D2Connection::ping(conn).is_ok());
    assert!(!R2D2Connection::is_broken(conn));
    assert_eq!(of(conn, "query_only"), Ok(1));
    let timeout =
        conn.on_local(|conn| number(conn, "SELECT timeout AS n FROM pragma_busy_timeout"));
    assert_eq!(timeout, Ok(5_000));
}

#[test]
fn x14_a_row_chosen_at_random_is_validated_as_it_was_seen() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for _ in 0..20 {
        on_primary(&test, "DELETE FROM accounts WHERE id > 2; INSERT INTO accounts VALUES (3, 7)");
        test.sync();
        let result = conn.transaction(|conn| {
            let chosen = number(
                conn,
                "SELECT id AS n FROM accounts WHERE id > 1 ORDER BY random() LIMIT 1",
            )?;
            on_primary(&test, &format!("DELETE FROM accounts WHERE id = {chosen}"));
            add(conn, 1, 1)
        });
        is_conflict(&result);
        on_primary(&test, "INSERT OR IGNORE INTO accounts VALUES (2, 0)");
    }
    assert_eq!(balances(&test, "a")[0], 100);
}

#[test]
fn x14_a_pragma_that_was_read_is_validated() {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = Integer)]
        user_version: i32,
    }
    let test = test_cluster();
    let mut conn = test.conn("b");
    let result = conn.transaction(|conn| {
        let version = diesel::sql_query("PRAGMA user_version").get_result::<Version>(conn)?;
        assert_eq!(version.user_version, 0);
        on_primary(&test, "PRAGMA user_version = 2");
        add(conn, 1, 1)
    });
    is_conflict(&result);
    assert_eq!(balances(&test, "a")[0], 100);
}

#[test]
fn x14_a_statement_whose_schema_has_changed_is_validated() {
    let test = test_cluster();
    test.schema("CREATE VIEW v AS SELECT 1 AS n");
    let mut conn = test.conn("b");
    let seen = |conn: &mut LiteFsConnection| number(conn, "SELECT n FROM v");
    conn.transaction(|conn| {
        assert_eq!(seen(conn)?, 1);
        add(conn, 1, 1)
    })
    .unwrap();
    test.schema("DROP VIEW v; CREATE VIEW v AS SELECT balance AS n FROM accounts WHERE id = 2");
    let result = conn.transaction(|conn| {
        assert_eq!(seen(conn)?, 0);
        on_primary(&test, "UPDATE accounts SET balance = 5 WHERE id = 2");
        add(conn, 1, 1)
    });
    is_conflict(&result);
    assert_eq!(balances(&test, "a"), [101, 5, 7]);
}

#[test]
fn x14_a_query_without_its_rows_is_no_conflict() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    add(&mut test.conn("b"), 3, 1).unwrap();
    conn.transaction(|conn| {
        diesel::sql_query("SELECT balance FROM accounts WHERE id = 1").execute(conn)?;
        on_primary(&test, "UPDATE accounts SET balance = balance + 1 WHERE id > 1");
        add(conn, 1, 1)
    })
    .unwrap();
    assert_eq!(balances(&test, "a"), [101, 1, 9]);
}

#[test]
fn x24_a_savepoint_is_set_once_on_the_primary() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("BEGIN; SAVEPOINT one").unwrap_err();
    conn.batch_execute("BEGIN").unwrap();
    conn.batch_execute("SAVEPOINT one").unwrap();
    // The primary reports the violation.
    let twice = "INSERT INTO entries VALUES (1, 'twice')";
    diesel::sql_query(twice).execute(&mut conn).unwrap_err();
    diesel::sql_query("INSERT INTO entries VALUES (2, 'second')").execute(&mut conn).unwrap();
    conn.batch_execute("RELEASE one").unwrap();
    let gone = conn.batch_execute("ROLLBACK TO one").unwrap_err();
    assert_eq!(gone.to_string(), "no such savepoint: one");
    conn.batch_execute("COMMIT").unwrap();
    assert_eq!(number(&mut test.plain("a"), "SELECT count(*) AS n FROM entries"), Ok(2));
}

#[test]
fn x24_a_savepoint_may_have_any_name() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for (at, read) in [(10, true), (20, false)] {
        conn.batch_execute("BEGIN").unwrap();
        conn.batch_execute("SAVEPOINT \"a \"\" name\"").unwrap();
        if read {
            balance(&mut conn, 1).unwrap();
        }
        add(&mut conn, 2, at).unwrap();
        conn.batch_execute("ROLLBACK TO \"a \"\" name\"").unwrap();
        add(&mut conn, 3, 1).unwrap();
        conn.batch_execute("COMMIT").unwrap();
    }
    assert_eq!(balances(&test, "a"), [100, 0, 9]);
}

#[test]
fn x22_a_promotion_finds_the_savepoints_of_reads() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let node = test.cluster.node("b");
    conn.transaction(|conn| {
        balance(conn, 3)?;
        conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            // The node does not know of its promotion before the transaction moves.
            node.set_event_stream_fault(EventStreamFault::Hang).unwrap();
            node.set_info_fault(InfoFault::Hang).unwrap();
            test.cluster.promote("b").unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    node.set_info_fault(InfoFault::None).unwrap();
                    node.set_event_stream_fault(EventStreamFault::None).unwrap();
                });
                diesel::sql_query("CREATE TABLE made (x)").execute(conn)
            })
        })?;
        let undone = conn.transaction(|conn| {
            add(conn, 2, 1)?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(undone, Err(Error::RollbackTransaction));
        add(conn, 3, 1)
    })
    .unwrap();
    assert_eq!(balances(&test, "b"), [100, 0, 8]);
}

#[test]
fn x22_a_promotion_between_a_read_and_a_write_is_a_conflict() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let result = conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        test.cluster.promote("b").unwrap();
        test.wait_for_roles();
        // The new primary has written since.
        add(conn, 1, 1)
    });
    is_conflict(&result);
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, 1)
    })
    .unwrap();
    assert_eq!(balances(&test, "b"), [101, 0, 7]);
}

#[test]
fn x22_a_savepoint_that_began_it_ends_it_after_a_promotion() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("SAVEPOINT outer_one").unwrap();
    balance(&mut conn, 1).unwrap();
    add(&mut conn, 2, 1).unwrap();
    test.cluster.promote("b").unwrap();
    add(&mut conn, 1, 1).unwrap();
    conn.batch_execute("RELEASE outer_one").unwrap();
    test.plain("b").batch_execute("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE").unwrap();
    assert_eq!(balances(&test, "b"), [101, 1, 7]);
}

#[test]
fn x13_the_session_functions_say_what_plain_sqlite_says() {
    const ASK: &str = "SELECT last_insert_rowid() * 1000000 + changes() * 1000 + total_changes() \
                       AS n";
    fn answers<C>(conn: &mut C) -> Vec<QueryResult<i64>>
    where
        C: LoadConnection + Connection<Backend = Sqlite>,
    {
        let programs: [&[&str]; 7] = [
            &["SELECT 1 FROM accounts", "UPDATE accounts SET balance = balance + 1"],
            &["INSERT INTO entries VALUES (7, 'seven')", "UPDATE entries SET what = what || 'x'"],
            &["INSERT INTO entries VALUES (1, 'one')", "INSERT INTO entries VALUES (8, 'eight')"],
            &[
                "SELECT 1 FROM accounts",
                "INSERT INTO entries (what) VALUES ('nine')",
                "UPDATE accounts SET balance = 1 WHERE id < 3",
                "CREATE TABLE IF NOT EXISTS made (x)",
                "INSERT INTO made VALUES (1)",
            ],
            &["SELECT 1 FROM accounts", "INSERT INTO entries VALUES (1, 'one')"],
            &["SELECT 1 FROM accounts", "UPDATE accounts SET balance = 1 WHERE id > 50"],
            &["SELECT 1 FROM accounts", "DELETE FROM made", "ROLLBACK"],
        ];
        let mut all = Vec::new();
        for program in programs {
            conn.batch_execute("BEGIN").unwrap();
            for sql in program {
                match *sql {
                    "ROLLBACK" => conn.batch_execute(sql).unwrap(),
                    _ if sql.starts_with("SELECT") => {
                        diesel::sql_query(*sql).execute(conn).unwrap();
                    }
                    _ => drop(diesel::sql_query(*sql).execute(conn)),
                }
            }
            let _ = conn.batch_execute("COMMIT");
            all.push(number(conn, ASK));
        }
        all
    }
    let test = test_cluster();
    let mut plain = SqliteConnection::establish(":memory:").unwrap();
    plain.batch_execute(SCHEMA).unwrap();
    let before = number(&mut plain, ASK).unwrap();
    assert_eq!(before, 1_001_004);
    let mut conn = test.conn("b");
    // As many changes before as on the other.
    conn.batch_execute("CREATE TEMP TABLE t (x); INSERT INTO t (rowid) VALUES (4), (3), (2)")
        .unwrap();
    conn.batch_execute("INSERT INTO t (rowid) VALUES (1)").unwrap();
    assert_eq!(answers(&mut conn), answers(&mut plain));
}

#[test]
fn x21_the_limit_may_come_between_any_two_steps() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.speculation_limit(Duration::from_millis(20))
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    for at in 0..8 {
        on_primary(&test, "UPDATE accounts SET balance = 100 WHERE id = 1");
        on_primary(&test, "UPDATE accounts SET balance = 0 WHERE id = 2");
        test.sync();
        let mut step = 0;
        let mut limit = || {
            step += 1;
            if step == at {
                // The replica cannot apply this before the snapshot is gone.
                on_primary(&test, "UPDATE accounts SET balance = balance + 1 WHERE id = 3");
                test.sync();
            }
        };
        conn.transaction(|conn| {
            balance(conn, 1)?;
            add(conn, 1, 1)?;
            limit();
            let undone = conn.transaction(|conn| {
                limit();
                add(conn, 1, 10)?;
                limit();
                conn.transaction(|conn| {
                    add(conn, 1, 100)?;
                    limit();
                    Ok::<_, Error>(())
                })?;
                limit();
                Err::<(), _>(Error::RollbackTransaction)
            });
            assert_eq!(undone, Err(Error::RollbackTransaction));
            limit();
            conn.transaction(|conn| add(conn, 2, 1))?;
            limit();
            assert_eq!((balance(conn, 1)?, balance(conn, 2)?), (101, 1));
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(balances(&test, "a")[..2], [101, 1], "{at}");
        is_clean(&mut conn);
    }
}

#[test]
fn x16_a_lock_of_another_process_sends_it_to_the_primary() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let mut other = test.plain("b");
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, 1)?;
        assert_eq!(balance(conn, 1)?, 101);
        QueryResult::Ok(())
    })
    .unwrap();
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(balances(&test, "a"), [101, 0, 7]);
    is_clean(&mut conn);
}

#[test]
fn x16_a_long_transaction_is_applied_as_a_whole() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    test.schema("CREATE TABLE big (id INTEGER PRIMARY KEY, data BLOB)");
    conn.transaction(|conn| {
        assert_eq!(number(conn, "SELECT count(*) AS n FROM big")?, 0);
        for id in 0..1_200 {
            diesel::sql_query(format!("INSERT INTO big VALUES ({id}, zeroblob(10))"))
                .execute(conn)?;
        }
        assert_eq!(number(conn, "SELECT count(*) AS n FROM big")?, 1_200);
        QueryResult::Ok(())
    })
    .unwrap();
    conn.transaction(|conn| {
        assert_eq!(number(conn, "SELECT count(*) AS n FROM big")?, 1_200);
        for id in 0..4 {
            diesel::sql_query("UPDATE big SET data = ? WHERE id = ?")
                .bind::<diesel::sql_types::Binary, _>(vec![7_u8; 400_000])
                .bind::<Integer, _>(id)
                .execute(conn)?;
        }
        number(conn, "SELECT sum(length(data)) AS n FROM big")
    })
    .map(|sum| assert_eq!(sum, 1_600_000 + 11_960))
    .unwrap();
    // More than 4,096 pages.
    conn.transaction(|conn| {
        assert_eq!(number(conn, "SELECT count(*) AS n FROM big")?, 1_200);
        add(conn, 1, 1)?;
        diesel::sql_query("UPDATE big SET data = zeroblob(20000)").execute(conn)?;
        add(conn, 1, 1)
    })
    .unwrap();
    let sum = "SELECT sum(length(data)) AS n FROM big";
    assert_eq!(number(&mut test.plain("a"), sum), Ok(24_000_000));
    assert_eq!(balances(&test, "a"), [102, 0, 7]);
    test.sync();
    assert_eq!(number(&mut conn, sum), Ok(24_000_000));
    is_clean(&mut conn);
}

#[test]
fn x16_a_transaction_that_sqlite_rolls_back_is_lost() {
    let test = test_cluster();
    test.schema(
        "CREATE TRIGGER refuse BEFORE UPDATE ON accounts WHEN new.balance < 0 BEGIN
             SELECT RAISE(ROLLBACK, 'too little'); END",
    );
    let mut conn = test.conn("b");
    for statement in [
        "UPDATE accounts SET balance = -1 WHERE id = 1",
        "INSERT OR ROLLBACK INTO entries VALUES (1, 'again')",
    ] {
        let result = conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            add(conn, 2, 1)?;
            let refused = diesel::sql_query(statement).execute(conn).unwrap_err();
            assert_eq!(Failure::of(&refused), None, "{refused:?}");
            let next = add(conn, 3, 1).unwrap_err();
            assert_eq!(Failure::of(&next), Some(Failure::TransactionLost), "{next:?}");
            QueryResult::Ok(())
        });
        assert_eq!(Failure::of(&result.unwrap_err()), Some(Failure::TransactionLost));
        assert_eq!(balances(&test, "a"), [100, 0, 7]);
        is_clean(&mut conn);
    }
}

#[test]
fn x16_keys_that_are_deferred_inside_are_checked_at_commit() {
    let test = test_cluster();
    test.schema(
        "CREATE TABLE parts (id INTEGER PRIMARY KEY, account INTEGER REFERENCES accounts (id))",
    );
    let mut conn = test.conn("b");
    conn.batch_execute("PRAGMA foreign_keys = ON").unwrap();
    let part = |conn: &mut LiteFsConnection, id: i32, account: i32| {
        diesel::sql_query(format!("INSERT INTO parts VALUES ({id}, {account})")).execute(conn)
    };
    conn.transaction(|conn| {
        balance(conn, 1)?;
        add(conn, 1, 1)?;
        part(conn, 1, 9).unwrap_err();
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")?;
        part(conn, 1, 9)?;
        diesel::sql_query("INSERT INTO accounts VALUES (9, 0)").execute(conn)
    })
    .unwrap();
    let violated = conn.transaction(|conn| {
        balance(conn, 1)?;
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")?;
        add(conn, 1, 1)?;
        part(conn, 2, 10)
    });
    violated.unwrap_err();
    // It held for that transaction only.
    let refused = conn.transaction(|conn| {
        balance(conn, 1)?;
        // SQLite ignores it inside a transaction.
        conn.batch_execute("PRAGMA foreign_keys = OFF")?;
        add(conn, 1, 1)?;
        part(conn, 2, 10)
    });
    refused.unwrap_err();
    assert_eq!(balances(&test, "a"), [101, 0, 7, 0]);
    let on =
        conn.on_local(|conn| number(conn, "SELECT foreign_keys AS n FROM pragma_foreign_keys"));
    assert_eq!(on, Ok(1));
    is_clean(&mut conn);
}

#[test]
fn x24_a_speculation_that_is_dropped_or_panics_leaves_nothing() {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    let test = test_cluster();
    let mut conn = test.conn("b");
    AnsiTransactionManager::begin_transaction(&mut conn).unwrap();
    balance(&mut conn, 1).unwrap();
    add(&mut conn, 1, 1).unwrap();
    assert!(R2D2Connection::is_broken(&mut conn));
    // A pool drops it. The lock of the local file is free at once.
    drop(conn);
    test.plain("b").batch_execute("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; ROLLBACK").unwrap();
    let mut conn = test.conn("b");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        conn.transaction(|conn| -> QueryResult<()> {
            balance(conn, 1)?;
            add(conn, 1, 1)?;
            panic!("in the middle")
        })
    }));
    assert!(panicked.is_err());
    assert!(R2D2Connection::is_broken(&mut conn));
    drop(conn);
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, 5)
    })
    .unwrap();
    assert_eq!(balances(&test, "a"), [105, 0, 7]);
    is_clean(&mut conn);
}

#[test]
fn x19_two_connections_of_one_node_do_not_see_each_other() {
    let test = test_cluster();
    let (mut one, mut other) = (test.conn("b"), test.conn("b"));
    let outer = one.transaction(|one| {
        assert_eq!(balance(one, 1)?, 100);
        add(one, 1, 1)?;
        // Its turn does not come: it runs on the primary.
        other.transaction(|other| {
            assert_eq!(balance(other, 1)?, 100);
            add(other, 2, 1)?;
            assert_eq!(balance(other, 1)?, 100);
            add(other, 1, 10)
        })?;
        assert_eq!(balance(one, 2)?, 0);
        add(one, 3, 1)
    });
    is_conflict(&outer);
    assert_eq!(balances(&test, "a"), [110, 1, 7]);
    is_clean(&mut one);
    is_clean(&mut other);
}

#[test]
fn x20_a_record_meets_the_next_primary() {
    for changed in [false, true] {
        let test = TestCluster::start(&["a", "b", "c"]);
        test.schema(SCHEMA);
        let mut conn = test.conn("b");
        let result = conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            add(conn, 1, -30)?;
            if changed {
                on_primary(&test, "UPDATE accounts SET balance = 50 WHERE id = 1");
                test.cluster
                    .node("c")
                    .wait_until(litefs_tests::TIMEOUT, |status| {
                        status.positions.get(litefs_tests::DATABASE).is_some_and(|position| {
                            *position == test.cluster.node("a").position(litefs_tests::DATABASE)
                        })
                    })
                    .unwrap();
            }
            add(conn, 2, 30)?;
            test.cluster.kill("a").unwrap();
            let next = test.cluster.node("c");
            next.become_primary().unwrap();
            test.cluster.node("b").follow(next).unwrap();
            QueryResult::Ok(())
        });
        let balances = balances(&test, "c");
        if changed {
            is_conflict(&result);
            assert_eq!(balances, [50, 0, 7]);
        } else {
            result.unwrap();
            assert_eq!(balances, [70, 30, 7]);
        }
    }
}

#[test]
fn x18_values_of_every_kind_are_compared() {
    let test = test_cluster();
    test.schema(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, x);
         INSERT INTO things VALUES (1, 1e999), (2, NULL), (3, x'00ff00'),
             (4, 'a' || char(0) || 'b'), (5, 0.1), (6, 9e15), (7, '')",
    );
    let mut conn = test.conn("b");
    let all = "SELECT count(*) AS n, x, id, x - x AS nan, CAST(x AS BLOB) AS b, typeof(x) AS t \
               FROM things GROUP BY id";
    for change in ["x'00ff01'", "NULL", "'a' || char(0) || 'c'"] {
        let read = |conn: &mut LiteFsConnection| -> QueryResult<usize> {
            diesel::sql_query(all).load::<Number>(conn).map(|rows| rows.len())
        };
        conn.transaction(|conn| {
            assert_eq!(read(conn)?, 7);
            on_primary(&test, "UPDATE accounts SET balance = 8 WHERE id = 3");
            add(conn, 1, 1)?;
            assert_eq!(read(conn)?, 7);
            QueryResult::Ok(())
        })
        .unwrap();
        let id = if change.contains("char") { 4 } else { 3 };
        let result = conn.transaction(|conn| {
            assert_eq!(read(conn)?, 7);
            on_primary(&test, &format!("UPDATE things SET x = {change} WHERE id = {id}"));
            add(conn, 1, 1)
        });
        is_conflict(&result);
    }
}

#[test]
fn x15_an_automatic_id_before_a_move_is_the_primarys() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let enter = "INSERT INTO entries (what) VALUES ('mine')";
    for next in ["SELECT count(*) AS n FROM entries", "SELECT 1 AS n"] {
        on_primary(&test, "DELETE FROM entries");
        test.sync();
        let id = conn.transaction(|conn| {
            balance(conn, 1)?;
            on_primary(&test, "INSERT INTO entries VALUES (41, 'other')");
            diesel::sql_query(enter).execute(conn)?;
            number(conn, next)?;
            diesel::sql_query("UPDATE entries SET what = what || '!'").execute(conn)?;
            number(conn, "SELECT last_insert_rowid() AS n")
        });
        assert_eq!(id, Ok(42), "{next}");
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn chosen() -> Integer;
}

#[test]
fn x14_what_a_function_of_the_application_chose_is_validated() {
    use std::sync::atomic::{AtomicI32, Ordering};
    static CALLS: AtomicI32 = AtomicI32::new(0);
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.on_connection(|conn| {
            chosen_utils::register_nondeterministic_impl(conn, || {
                if CALLS.fetch_add(1, Ordering::Relaxed) == 0 { 1 } else { 3 }
            })
        })
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    let result = conn.transaction(|conn| {
        let chosen = "SELECT balance AS n FROM accounts WHERE id = (SELECT chosen())";
        assert_eq!(number(conn, chosen)?, 100);
        on_primary(&test, "UPDATE accounts SET balance = 50 WHERE id = 1");
        add(conn, 2, 1)
    });
    is_conflict(&result);
    assert_eq!(balances(&test, "a"), [50, 0, 7]);
}

#[test]
fn x20_a_last_rowid_that_was_asked_for_is_not_decided_again() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    let result = conn.transaction(|conn| {
        diesel::sql_query("UPDATE accounts SET balance = 1 WHERE id = 1").execute(conn)?;
        diesel::sql_query("INSERT INTO entries (what) VALUES ('mine')").execute(conn)?;
        let id = number(conn, "SELECT last_insert_rowid() AS n")?;
        assert_eq!(id, 2);
        test.cluster.promote("c").unwrap();
        test.wait_for_roles();
        let other = "INSERT INTO entries VALUES (41, 'other')";
        test.plain("c").batch_execute(other).unwrap();
        diesel::sql_query(format!("UPDATE accounts SET balance = {id} WHERE id = 2")).execute(conn)
    });
    let failure = result.as_ref().err().and_then(Failure::of);
    assert_eq!(failure, Some(Failure::TransactionLost), "{result:?}");
    assert_eq!(balances(&test, "c"), [100, 0, 7]);
}
