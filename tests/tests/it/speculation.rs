//! Transactions that run on a replica's snapshot and are validated by the primary: scenarios X13 to
//! X24 of the acceptance list.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::{Failure, LiteFsConnection, TransactionMode};
use litefs_tests::{TestCluster, wait_until};

diesel::table! { accounts { id -> Integer, balance -> Integer, } }
diesel::table! { entries { id -> Integer, what -> Text, } }

const SCHEMA: &str = "
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE entries (id INTEGER PRIMARY KEY, what TEXT NOT NULL UNIQUE);
    INSERT INTO accounts VALUES (1, 100), (2, 0), (3, 7);
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

fn enter(conn: &mut LiteFsConnection, what: &str) -> QueryResult<usize> {
    diesel::insert_into(entries::table).values(entries::what.eq(what)).execute(conn)
}

fn on_primary(test: &TestCluster, sql: &str) {
    test.plain("a").batch_execute(sql).unwrap();
}

fn balances(test: &TestCluster) -> Vec<i32> {
    accounts::table
        .select(accounts::balance)
        .order(accounts::id)
        .load(&mut test.plain("a"))
        .unwrap()
}

fn conflict(result: QueryResult<()>) -> String {
    let error = result.unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::SnapshotMoved), "{error:?}");
    let serialization = DatabaseErrorKind::SerializationFailure;
    assert!(matches!(&error, Error::DatabaseError(kind, _) if *kind as u8 == serialization as u8));
    error.to_string()
}

#[test]
fn x13_reads_and_writes_cost_one_round_trip() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let before = test.litefs("b").round_trips();
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, -30)?;
        add(conn, 2, 30)?;
        // It sees its own writes.
        assert_eq!((balance(conn, 1)?, balance(conn, 2)?), (70, 30));
        enter(conn, "moved").map(drop)
    })
    .unwrap();
    assert_eq!(test.litefs("b").round_trips() - before, 1);
    assert_eq!(balances(&test), [70, 30, 7]);
    assert_eq!(balance(&mut conn, 1), Ok(70), "what was committed is read back");
}

#[test]
fn x13_inserts_alone_cost_one_round_trip() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let before = test.litefs("b").round_trips();
    conn.transaction(|conn| enter(conn, "one").and_then(|_| enter(conn, "two"))).unwrap();
    assert_eq!(test.litefs("b").round_trips() - before, 1);
    assert_eq!(entries::table.count().get_result(&mut test.plain("a")), Ok(2_i64));
}

#[test]
fn x14_unrelated_commits_are_no_conflict() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        on_primary(&test, "UPDATE accounts SET balance = 8 WHERE id = 3");
        add(conn, 1, -30)?;
        on_primary(&test, "INSERT INTO entries (what) VALUES ('unrelated')");
        add(conn, 2, 30).map(drop)
    })
    .unwrap();
    assert_eq!(balances(&test), [70, 30, 8]);
}

#[test]
fn x14_a_change_to_what_was_seen_is_a_conflict_that_names_it() {
    for (change, named) in [
        ("UPDATE accounts SET balance = 99 WHERE id = 1", "statement 1"),
        ("INSERT INTO entries (what) VALUES ('x')", "statement 2"),
        ("DELETE FROM accounts WHERE id = 2", "statement 4"),
    ] {
        let test = test_cluster();
        let mut conn = test.conn("b");
        let result = conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            assert_eq!(entries::table.count().get_result(conn), Ok(0_i64));
            on_primary(&test, change);
            add(conn, 1, -30)?;
            add(conn, 2, 30).map(drop)
        });
        let error = conflict(result);
        assert!(error.contains(named), "{change}: {error}");
        let changed = if change.contains("99") { 99 } else { 100 };
        assert_eq!(balances(&test)[0], changed, "nothing of it is applied");
        // The next try reads what has changed.
        assert_eq!(balance(&mut conn, 1), Ok(changed));
    }
}

#[test]
fn x15_an_automatic_id_that_is_looked_at_is_the_primarys() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let id = conn
        .transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            add(conn, 1, -1)?;
            on_primary(&test, "INSERT INTO entries VALUES (41, 'other')");
            diesel::insert_into(entries::table)
                .values(entries::what.eq("mine"))
                .returning(entries::id)
                .get_result::<i32>(conn)
        })
        .unwrap();
    assert_eq!(id, 42);
    let found = entries::table.find(42).select(entries::what).first::<String>(&mut test.plain("a"));
    assert_eq!(found.as_deref(), Ok("mine"));
    assert_eq!(balances(&test)[0], 99);
}

#[test]
fn x15_last_insert_rowid_is_the_primarys() {
    diesel::define_sql_function! { fn last_insert_rowid() -> BigInt; }
    let test = test_cluster();
    let mut conn = test.conn("b");
    let inside = conn
        .transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            on_primary(&test, "INSERT INTO entries VALUES (41, 'other')");
            enter(conn, "mine")?;
            diesel::select(last_insert_rowid()).get_result::<i64>(conn)
        })
        .unwrap();
    assert_eq!(inside, 42);
    // The same for a transaction that only looks afterwards.
    conn.transaction(|conn| {
        balance(conn, 1)?;
        on_primary(&test, "INSERT INTO entries VALUES (50, 'another')");
        enter(conn, "again").map(drop)
    })
    .unwrap();
    assert_eq!(diesel::select(last_insert_rowid()).get_result(&mut conn), Ok(51_i64));
}

#[test]
fn x16_what_cannot_run_on_the_snapshot_goes_on_on_the_primary() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, -30)?;
        on_primary(&test, "INSERT INTO entries (what) VALUES ('unrelated')");
        diesel::sql_query("CREATE TABLE made (x)").execute(conn)?;
        diesel::sql_query("INSERT INTO made VALUES (1)").execute(conn)?;
        add(conn, 2, 30).map(drop)
    })
    .unwrap();
    assert_eq!(balances(&test), [70, 30, 7]);
    // The recorded beginning is validated.
    let error = conflict(conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 70);
        add(conn, 2, 1)?;
        on_primary(&test, "UPDATE accounts SET balance = 71 WHERE id = 1");
        diesel::sql_query("DROP TABLE made").execute(conn).map(drop)
    }));
    assert!(error.contains("statement 1"), "{error}");
    assert_eq!(balances(&test), [71, 30, 7]);
    assert_eq!(diesel::sql_query("SELECT * FROM made").execute(&mut test.plain("a")), Ok(0));
}

#[test]
fn x16_temporary_tables_and_the_database_do_not_mix() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("CREATE TEMP TABLE mine (x)").unwrap();
    let denied = conn.transaction(|conn| {
        balance(conn, 1)?;
        add(conn, 1, -30)?;
        diesel::sql_query("INSERT INTO mine VALUES (1)").execute(conn)
    });
    assert_eq!(Failure::of(&denied.unwrap_err()), Some(Failure::Denied));
    assert_eq!(balances(&test), [100, 0, 7]);
    // What only reads them stays here.
    conn.transaction(|conn| {
        balance(conn, 1)?;
        add(conn, 1, -30)?;
        diesel::sql_query("SELECT * FROM mine").execute(conn).map(drop)
    })
    .unwrap();
    assert_eq!(balances(&test), [70, 0, 7]);
}

#[test]
fn x18_triggers_defaults_and_upserts_are_as_on_plain_sqlite() {
    let test = test_cluster();
    test.schema(
        "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, at DEFAULT (random()));
         CREATE TRIGGER logged AFTER UPDATE ON accounts BEGIN
             INSERT INTO log (what) VALUES ('balance ' || new.balance); END;
         CREATE TABLE parents (id INTEGER PRIMARY KEY);
         CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL
             REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE VIRTUAL TABLE words USING fts5(word);",
    );
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, -30)?;
        on_primary(&test, "INSERT INTO entries (what) VALUES ('unrelated')");
        diesel::sql_query("SELECT what, at FROM log").execute(conn)?;
        diesel::sql_query(
            "INSERT INTO accounts VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET balance = 5",
        )
        .execute(conn)?;
        diesel::sql_query("INSERT INTO words VALUES ('hello')").execute(conn).map(drop)
    })
    .unwrap();
    conn.batch_execute("PRAGMA foreign_keys = ON").unwrap();
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 5);
        diesel::sql_query("INSERT INTO children VALUES (1, 9)").execute(conn)?;
        diesel::sql_query("INSERT INTO parents VALUES (9)").execute(conn).map(drop)
    })
    .unwrap();
    assert_eq!(balances(&test)[0], 5);
    let count = |sql: &str| {
        #[derive(diesel::QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        diesel::sql_query(sql).get_result::<Count>(&mut test.plain("a")).unwrap().n
    };
    assert_eq!(count("SELECT count(*) AS n FROM log"), 2);
    assert_eq!(count("SELECT count(*) AS n FROM words WHERE words MATCH 'hello'"), 1);
    assert_eq!(count("SELECT count(*) AS n FROM children"), 1);
    // A deferred key that is not satisfied fails COMMIT with SQLite's own error.
    let violated = conn.transaction(|conn| {
        balance(conn, 1)?;
        diesel::sql_query("INSERT INTO children VALUES (2, 77)").execute(conn)
    });
    assert!(matches!(
        violated,
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
    ));
}

#[test]
fn x19_everyone_gets_their_turn_under_contention() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    std::thread::scope(|scope| {
        for node in ["a", "b", "c"] {
            let test = &test;
            scope.spawn(move || {
                let mut conn = test.conn(node);
                for _ in 0..40 {
                    conn.transaction_with_retry(100, |conn| {
                        let n = balance(conn, 1)?;
                        diesel::update(accounts::table.find(1))
                            .set(accounts::balance.eq(n + 1))
                            .execute(conn)
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(balances(&test)[0], 220);
}

/// Inserts an entry and looks at its id, which the primary decides.
fn enter_and_look(conn: &mut LiteFsConnection, what: &str) -> QueryResult<i32> {
    diesel::insert_into(entries::table)
        .values(entries::what.eq(what))
        .returning(entries::id)
        .get_result(conn)
}

#[test]
fn x20_a_transaction_survives_the_loss_of_its_primary() {
    for at_commit in [false, true] {
        let test = TestCluster::start(&["a", "b", "c"]);
        test.schema(SCHEMA);
        let mut conn = test.conn("b");
        let ids = conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            let first = enter_and_look(conn, "one")?;
            conn.transaction(|conn| add(conn, 1, -30))?;
            if at_commit {
                let second = enter_and_look(conn, "two")?;
                test.cluster.promote("c").unwrap();
                return QueryResult::Ok((first, second));
            }
            test.cluster.promote("c").unwrap();
            Ok((first, enter_and_look(conn, "two")?))
        });
        assert_eq!(ids, Ok((1, 2)), "at COMMIT: {at_commit}");
        let mut primary = test.plain("c");
        assert_eq!(entries::table.count().get_result(&mut primary), Ok(2_i64));
        let one = accounts::table.find(1).select(accounts::balance);
        assert_eq!(one.first(&mut primary), Ok(70));
    }
}

#[test]
fn x20_what_the_next_primary_sees_otherwise_is_a_conflict() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    let result = conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        enter_and_look(conn, "one")?;
        test.cluster.promote("c").unwrap();
        let mut primary = test.conn("c");
        enter_and_look(&mut primary, "another")?;
        add(conn, 1, -30).map(drop)
    });
    conflict(result);
    let mut primary = test.plain("c");
    assert_eq!(
        entries::table.select(entries::what).load(&mut primary),
        Ok(vec!["another".to_string()])
    );
}

#[test]
fn x21_a_speculation_that_stays_open_is_ended_and_goes_on() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.speculation_limit(Duration::from_millis(50))
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, -30)?;
        // Replication goes on although the transaction is still open.
        on_primary(&test, "UPDATE accounts SET balance = 8 WHERE id = 3");
        let mut other = test.plain("b");
        let started = Instant::now();
        wait_until("the replica has the commit", || {
            let three = accounts::table.find(3).select(accounts::balance);
            three.first::<i32>(&mut other) == Ok(8)
        });
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(balance(conn, 1)?, 70, "on the primary now");
        add(conn, 2, 30).map(drop)
    })
    .unwrap();
    assert_eq!(balances(&test), [70, 30, 8]);
    // The same when only COMMIT is left.
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 70);
        add(conn, 1, -20)?;
        on_primary(&test, "UPDATE accounts SET balance = 9 WHERE id = 3");
        let mut other = test.plain("b");
        wait_until("the replica has the commit", || {
            let three = accounts::table.find(3).select(accounts::balance);
            three.first::<i32>(&mut other) == Ok(9)
        });
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(balances(&test), [50, 30, 9]);
}

#[test]
fn x22_a_promotion_of_this_node_meets_a_speculation() {
    for changed in [false, true] {
        let test = test_cluster();
        let mut conn = test.conn("b");
        let result = conn.transaction(|conn| {
            assert_eq!(balance(conn, 1)?, 100);
            add(conn, 1, -30)?;
            if changed {
                on_primary(&test, "UPDATE accounts SET balance = 50 WHERE id = 1");
            }
            test.cluster.promote("b").unwrap();
            add(conn, 2, 30).map(drop)
        });
        if changed {
            conflict(result);
        } else {
            result.unwrap();
            let all = accounts::table.select(accounts::balance).order(accounts::id);
            assert_eq!(all.load::<i32>(&mut test.plain("b")), Ok(vec![70, 30, 7]));
        }
    }
}

#[test]
fn x24_savepoints_are_rolled_back_inside_a_record() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let before = test.litefs("b").round_trips();
    conn.transaction(|conn| {
        assert_eq!(balance(conn, 1)?, 100);
        add(conn, 1, -30)?;
        let inner = conn.transaction(|conn| {
            add(conn, 2, 1_000)?;
            assert_eq!(balance(conn, 2)?, 1_000);
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(inner, Err(Error::RollbackTransaction));
        assert_eq!(balance(conn, 2)?, 0);
        conn.transaction(|conn| add(conn, 2, 30)).map(drop)
    })
    .unwrap();
    assert_eq!(test.litefs("b").round_trips() - before, 1);
    assert_eq!(balances(&test), [70, 30, 7]);
    let rolled_back = conn.transaction(|conn| {
        balance(conn, 1)?;
        add(conn, 1, 1)?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(rolled_back, Err(Error::RollbackTransaction));
    assert_eq!(test.litefs("b").round_trips() - before, 1);
    assert_eq!(balance(&mut conn, 1), Ok(70));
}

#[test]
fn x24_the_mode_of_the_handle_chooses() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.transactions(TransactionMode::Immediate)
    });
    test.schema(SCHEMA);
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        conn.transaction(|conn| {
            let before = balance(conn, 1)?;
            let mut other = test.plain("a");
            let change = "PRAGMA busy_timeout = 0; UPDATE accounts SET balance = 1 WHERE id = 1";
            assert!(other.batch_execute(change).unwrap_err().to_string().contains("locked"));
            assert_eq!(balance(conn, 1)?, before);
            add(conn, 1, 1).map(drop)
        })
        .unwrap();
        test.sync();
    }
    assert_eq!(balances(&test)[0], 102);
}
