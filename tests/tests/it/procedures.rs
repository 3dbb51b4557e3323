//! Remote procedures on a cluster: scenario X23 of the acceptance list.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{
    Delivery, Failure, LiteFs, LiteFsBuilder, LiteFsConnection, Outcome, Procedure, TransactionMode,
};
use litefs_rpc::Limits;
use litefs_rpc::wire::Output;
use litefs_testkit::{Relay, Traffic};
use litefs_tests::{TestCluster, relay, wait_until};
use serde::{Deserialize, Serialize};

diesel::table! { account { id -> Integer, balance -> BigInt, } }

const SCHEMA: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
    INSERT INTO account VALUES (1, 100), (2, 0);
";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Transfer {
    from: i32,
    to: i32,
    amount: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    left: i64,
    note: Option<String>,
}

fn add(conn: &mut SqliteConnection, id: i32, amount: i64) -> QueryResult<i64> {
    diesel::update(account::table.find(id))
        .set(account::balance.eq(account::balance + amount))
        .returning(account::balance)
        .get_result(conn)
}

static TRANSFER: Procedure<Transfer, Receipt> = Procedure::new("transfer", |conn, transfer| {
    let Transfer { from, to, amount } = transfer;
    add(conn, to, amount)?;
    let left = add(conn, from, -amount)?;
    Ok(Receipt { left, note: (left == 0).then(|| "empty".into()) })
});

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fault {
    NotFound,
    Rollback,
    Unique,
    Panic,
    Commit,
}

/// Changes a balance, and fails in one of several ways.
static FAILING: Procedure<Fault, ()> = Procedure::new("failing", |conn, fault| {
    add(conn, 2, 1000)?;
    match fault {
        Fault::NotFound => Err(Error::NotFound),
        Fault::Rollback => Err(Error::RollbackTransaction),
        Fault::Unique => conn.batch_execute("INSERT INTO account VALUES (1, 1)"),
        Fault::Panic => panic!("on purpose"),
        Fault::Commit => conn.batch_execute("COMMIT"),
    }
});

/// Opens an account, and returns text of this length.
static OPEN: Procedure<usize, (i32, String)> = Procedure::new("open", |conn, length| {
    let id = diesel::insert_into(account::table)
        .values(account::balance.eq(7))
        .returning(account::id)
        .get_result(conn)?;
    Ok((id, "x".repeat(length)))
});

fn registered(builder: LiteFsBuilder) -> LiteFsBuilder {
    builder.procedure(&TRANSFER).procedure(&FAILING).procedure(&OPEN)
}

fn test_cluster() -> TestCluster {
    configured(|_, builder| registered(builder))
}

fn configured(configure: impl Fn(&str, LiteFsBuilder) -> LiteFsBuilder) -> TestCluster {
    let test = TestCluster::configured(&["a", "b", "c"], configure);
    test.schema(SCHEMA);
    test
}

/// The primary is reached through a relay; the node c has no procedures.
fn behind_a_relay() -> (TestCluster, Relay) {
    let relay = relay();
    let test = TestCluster::behind(&["a", "b", "c"], &[("a", &relay)], |name, builder| {
        if name == "c" { builder } else { registered(builder) }
    });
    test.schema(SCHEMA);
    // The connection exists already: the relay loses a call or its reply, not the handshake.
    test.conn("b").batch_execute("DELETE FROM account WHERE id = 77").unwrap();
    (test, relay)
}

fn transfer(amount: i64) -> Transfer {
    Transfer { from: 1, to: 2, amount }
}

fn receipt(left: i64) -> QueryResult<Receipt> {
    Ok(Receipt { left, note: None })
}

fn balances(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<i64> {
    account::table.select(account::balance).order(account::id).load(conn).unwrap()
}

/// What the session functions say.
fn counters(conn: &mut LiteFsConnection) -> (i64, i64) {
    use diesel::dsl::sql;
    use diesel::sql_types::BigInt;
    let changes = sql::<BigInt>("changes()");
    let rowid = sql::<BigInt>("last_insert_rowid()");
    diesel::select((rowid, changes)).get_result(conn).unwrap()
}

#[test]
fn x23_a_call_takes_one_round_trip() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    assert_eq!(conn.call(&TRANSFER, &transfer(10)), receipt(90), "the first call connects");
    let before = test.litefs("b").round_trips();
    assert_eq!(conn.call(&TRANSFER, &transfer(10)), receipt(80));
    assert_eq!(test.litefs("b").round_trips() - before, 1);
    assert_eq!(balances(&mut conn), [80, 20], "this node reads what it has written");
    let empty = Receipt { left: 0, note: Some("empty".into()) };
    assert_eq!(test.conn("c").call(&TRANSFER, &transfer(80)), Ok(empty));
    assert_eq!(balances(&mut test.plain("a")), [0, 100]);
    assert!(conn.acknowledgement().is_some());
}

#[test]
fn x23_on_the_primary_and_without_litefs_it_is_a_plain_call() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    assert_eq!(conn.call(&TRANSFER, &transfer(10)), receipt(90));
    assert_eq!(test.litefs("a").round_trips(), 0);
    test.sync();
    assert_eq!(balances(&mut test.plain("b")), [90, 10]);

    let dir = tempfile::tempdir().unwrap();
    let litefs = LiteFs::start(dir.path().join("app.db").to_str().unwrap()).unwrap();
    let in_memory = LiteFsConnection::establish(":memory:").unwrap();
    for mut conn in [litefs.establish().unwrap(), in_memory] {
        conn.batch_execute(SCHEMA).unwrap();
        assert_eq!(conn.call(&TRANSFER, &transfer(10)), receipt(90), "also if not registered");
        assert_eq!(conn.call(&FAILING, &Fault::NotFound), Err(Error::NotFound));
        let failed = conn.call(&FAILING, &Fault::Commit).unwrap_err();
        assert_eq!(Failure::of(&failed), Some(Failure::ProcedureFailed), "{failed}");
        let rolled_back = conn.transaction(|conn| {
            conn.call(&TRANSFER, &transfer(10))?;
            assert_eq!(conn.call(&FAILING, &Fault::NotFound), Err(Error::NotFound));
            assert_eq!(balances(conn), [80, 20]);
            QueryResult::<()>::Err(Error::RollbackTransaction)
        });
        assert_eq!(rolled_back, Err(Error::RollbackTransaction));
        assert_eq!(balances(&mut conn), [90, 10]);
    }
}

#[test]
fn x23_a_call_with_a_lost_reply_is_applied_once() {
    let (test, relay) = behind_a_relay();
    let mut conn = test.conn("b");
    let before = test.litefs("b").round_trips();
    relay.set_replies(Traffic::Lose(1));
    assert_eq!(conn.call(&TRANSFER, &transfer(10)), receipt(90));
    assert_eq!(test.litefs("b").round_trips() - before, 2, "sent twice");
    assert_eq!(balances(&mut test.plain("a")), [90, 10]);
}

#[test]
fn x23_a_call_whose_primary_dies_is_applied_once() {
    // The promoted node is another node, which does not know the procedure, or the one that waits.
    for next in ["c", "b"] {
        let (test, relay) = behind_a_relay();
        let mut conn = test.conn("b");
        relay.set_replies(Traffic::Capture);
        let called = std::thread::scope(|scope| {
            let call = scope.spawn(|| conn.call(&TRANSFER, &transfer(10)));
            for node in ["b", "c"] {
                wait_until("the change", || balances(&mut test.plain(node)) == [90, 10]);
            }
            test.cluster.promote(next).unwrap();
            call.join().unwrap()
        });
        assert_eq!(called, receipt(90), "{next}");
        test.sync();
        assert_eq!(balances(&mut test.plain("c")), [90, 10], "{next}");
    }
}

#[test]
fn x23_an_undelivered_call_is_run_by_the_next_primary() {
    for next in ["c", "b"] {
        let (test, relay) = behind_a_relay();
        test.litefs("c").procedure(&TRANSFER);
        let mut conn = test.conn("b");
        relay.set_requests(Traffic::Capture);
        let called = std::thread::scope(|scope| {
            let call = scope.spawn(|| conn.call(&TRANSFER, &transfer(10)));
            wait_until("the request", || relay.captured() >= 1);
            test.cluster.promote(next).unwrap();
            call.join().unwrap()
        });
        assert_eq!(called, receipt(90), "{next}");
        test.sync();
        assert_eq!(balances(&mut test.plain("c")), [90, 10], "{next}");
    }
}

#[test]
fn x23_an_unknown_outcome_can_be_asked_for() {
    let (test, relay) = behind_a_relay();
    let mut conn = test.conn("b");
    relay.set_replies(Traffic::Lose(1));
    let call = |conn: &mut LiteFsConnection| conn.call(&TRANSFER, &transfer(10));
    let unknown = conn.with_delivery(Delivery::AtMostOnce, call).unwrap_err();
    assert_eq!(Failure::of(&unknown), Some(Failure::OutcomeUnknown), "{unknown}");

    static GATE: Mutex<()> = Mutex::new(());
    static SLOW: Procedure<i64, i64> = Procedure::new("slow", |conn, amount| {
        let _opened = GATE.lock().unwrap();
        add(conn, 2, amount)
    });
    let timeout = Duration::from_millis(500);
    let test = configured(|_, builder| builder.procedure(&SLOW).forward_timeout(timeout));
    let mut conn = test.conn("b");
    // The procedure takes longer than its caller waits.
    let closed = GATE.lock().unwrap();
    let unknown = conn.call(&SLOW, &7).unwrap_err();
    assert_eq!(Failure::of(&unknown), Some(Failure::OutcomeUnknown), "{unknown}");
    drop(closed);
    wait_until("the end of the procedure", || balances(&mut test.plain("a")) == [100, 7]);
    match test.litefs("c").outcome(Failure::write_of(&unknown).unwrap()) {
        Ok(Outcome::Applied(Output::Value(value), _)) => assert_eq!(SLOW.result(&value), Ok(7)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn x23_an_error_or_panic_within_leaves_nothing() {
    let test = test_cluster();
    for node in ["b", "a"] {
        let mut conn = test.conn(node);
        assert_eq!(conn.call(&FAILING, &Fault::NotFound), Err(Error::NotFound), "{node}");
        assert_eq!(conn.call(&FAILING, &Fault::Rollback), Err(Error::RollbackTransaction));
        match conn.call(&FAILING, &Fault::Unique) {
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, information)) => {
                assert_eq!(information.message(), "UNIQUE constraint failed: account.id");
            }
            other => panic!("{other:?}"),
        }
        let failed = conn.call(&FAILING, &Fault::Commit).unwrap_err();
        assert_eq!(Failure::of(&failed), Some(Failure::ProcedureFailed), "{failed}");
        assert!(failed.to_string().contains("has ended its own transaction"), "{failed}");
        let panicked = catch_unwind(AssertUnwindSafe(|| conn.call(&FAILING, &Fault::Panic)));
        if node == "a" {
            let panic = panicked.unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        } else {
            let failed = panicked.unwrap().unwrap_err();
            assert_eq!(Failure::of(&failed), Some(Failure::ProcedureFailed), "{failed}");
            let message = failed.to_string();
            assert!(message.contains("on purpose") && message.contains("node a"), "{message}");
        }
        assert_eq!(balances(&mut conn), [100, 0], "{node}");
        conn.batch_execute("UPDATE account SET balance = balance").unwrap();
    }
    assert_eq!(test.conn("b").call(&TRANSFER, &transfer(1)), receipt(99));
    assert_eq!(balances(&mut test.plain("a")), [99, 1]);
}

#[test]
fn x23_a_node_without_the_procedure_is_named() {
    static NEWER: Procedure<(i32, i32), Receipt> = Procedure::new("transfer", |_, _| receipt(0));
    static CHANGED: Procedure<Transfer, Receipt> =
        Procedure::new("transfer", |_, _| receipt(0)).version(1);
    let test = configured(|name, builder| match name {
        "a" => builder,
        "b" => registered(builder),
        _ => builder.procedure(&NEWER),
    });
    let mut conn = test.conn("b");
    let unknown = conn.call(&TRANSFER, &transfer(1)).unwrap_err();
    assert_eq!(Failure::of(&unknown), Some(Failure::NoProcedure));
    assert_eq!(unknown.to_string(), "on node a the procedure \"transfer\" is not registered");
    test.litefs("a").procedure(&TRANSFER);
    assert_eq!(conn.call(&TRANSFER, &transfer(1)), receipt(99), "registered later");

    test.cluster.promote("c").unwrap();
    test.wait_for_roles();
    let differs = conn.call(&TRANSFER, &transfer(1)).unwrap_err();
    assert_eq!(Failure::of(&differs), Some(Failure::NoProcedure));
    assert_eq!(
        differs.to_string(),
        "on node c the procedure \"transfer\" is registered as version 0, (i32, i32) -> \
         Receipt{left:i64, note:?str}"
    );
    test.litefs("c").procedure(&CHANGED);
    let differs = conn.call(&TRANSFER, &transfer(1)).unwrap_err();
    assert!(differs.to_string().contains("version 1, Transfer{from:i32"), "{differs}");
    assert_eq!(balances(&mut test.plain("c")), [99, 1]);
}

#[test]
fn x23_within_a_transaction_it_is_a_step_of_it() {
    for mode in [TransactionMode::Optimistic, TransactionMode::Immediate] {
        let test = configured(|_, builder| registered(builder).transactions(mode));
        for (node, reads, writes) in [
            ("a", false, false),
            ("a", true, true),
            ("b", false, false),
            ("b", true, false),
            ("b", false, true),
            ("b", true, true),
        ] {
            let case = format!("{mode:?}, {node}, {reads}, {writes}");
            let mut conn = test.conn(node);
            test.sync();
            let start = balances(&mut conn);
            let mut transact = |ends: fn() -> QueryResult<()>| {
                conn.transaction(|conn| {
                    if reads {
                        assert_eq!(balances(conn), start, "{case}");
                    }
                    if writes {
                        let two = account::table.find(2);
                        diesel::update(two)
                            .set(account::balance.eq(account::balance + 5))
                            .execute(conn)?;
                    }
                    if reads == writes {
                        let failed = conn.call(&FAILING, &Fault::Unique).unwrap_err();
                        assert!(failed.to_string().contains("UNIQUE"), "{case}: {failed}");
                    }
                    let left = conn.call(&TRANSFER, &transfer(3))?.left;
                    assert_eq!(left, start[0] - 3, "{case}");
                    assert_eq!(conn.call(&FAILING, &Fault::NotFound), Err(Error::NotFound));
                    assert_eq!(conn.call(&TRANSFER, &transfer(2))?.left, left - 2, "{case}");
                    ends()
                })
            };
            let rolled_back = transact(|| Err(Error::RollbackTransaction));
            assert_eq!(rolled_back, Err(Error::RollbackTransaction), "{case}");
            transact(|| Ok(())).unwrap_or_else(|error| panic!("{case}: {error}"));
            let extra = if writes { 5 } else { 0 };
            assert_eq!(balances(&mut conn), [start[0] - 5, start[1] + 5 + extra], "{case}");
        }
    }
}

#[test]
fn x23_a_transaction_that_begins_with_a_call_takes_two_round_trips() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.call(&TRANSFER, &transfer(1)).unwrap();
    let before = test.litefs("b").round_trips();
    conn.transaction(|conn| conn.call(&TRANSFER, &transfer(1)).map(drop)).unwrap();
    assert_eq!(test.litefs("b").round_trips() - before, 2, "with BEGIN, and COMMIT");
}

#[test]
fn x23_a_step_that_ends_the_transaction_loses_it() {
    let test = test_cluster();
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        let lost = conn.transaction(|conn| {
            conn.call(&TRANSFER, &transfer(1))?;
            let failed = conn.call(&FAILING, &Fault::Commit).unwrap_err();
            assert!(Failure::of(&failed).is_some(), "{failed}");
            // What comes after must not be applied by itself.
            conn.call(&TRANSFER, &transfer(1)).map(drop)
        });
        let lost = lost.unwrap_err();
        assert_eq!(Failure::of(&lost), Some(Failure::TransactionLost), "{node}: {lost}");
        assert_eq!(balances(&mut conn), [100, 0], "{node}");
    }
}

#[test]
fn x23_the_session_functions_say_the_same_on_every_node() {
    let test = test_cluster();
    for (node, id) in [("a", 3), ("b", 4)] {
        let mut conn = test.conn(node);
        assert_eq!(conn.call(&OPEN, &0).map(|(id, _)| id), Ok(id));
        assert_eq!(counters(&mut conn), (id.into(), 1), "{node}");
        conn.call(&TRANSFER, &transfer(1)).unwrap();
        assert_eq!(counters(&mut conn), (id.into(), 1), "{node}");
    }
}

#[test]
fn x23_arguments_and_results_obey_the_limits() {
    static LENGTH: Procedure<String, usize> = Procedure::new("length", |_, text| Ok(text.len()));
    let limits = {
        let mut limits = Limits::default();
        limits.frame = 10_000;
        limits
    };
    let test =
        configured(|_, builder| registered(builder).procedure(&LENGTH).limits(limits.clone()));
    let mut conn = test.conn("b");
    assert_eq!(conn.call(&LENGTH, &"x".repeat(5_000)), Ok(5_000));
    let refused = conn.call(&LENGTH, &"x".repeat(10_000)).unwrap_err();
    assert_eq!(Failure::of(&refused), Some(Failure::TooLarge), "{refused}");
    let before = balances(&mut conn).len();
    assert_eq!(conn.call(&OPEN, &5_000).unwrap().1.len(), 5_000);
    let refused = conn.call(&OPEN, &10_000).unwrap_err();
    assert_eq!(Failure::of(&refused), Some(Failure::TooLarge), "{refused}");
    assert_eq!(balances(&mut conn).len(), before + 1);
}

#[test]
fn x23_calls_of_all_nodes_at_once_are_each_applied_once() {
    let test = test_cluster();
    test.schema("UPDATE account SET balance = 1000 WHERE id = 1");
    std::thread::scope(|scope| {
        for node in ["a", "b", "c", "b"] {
            let mut conn = test.conn(node);
            scope.spawn(move || {
                for _ in 0..25 {
                    conn.call(&TRANSFER, &transfer(1)).unwrap();
                    // Writes that are grouped share no transaction with a call.
                    conn.batch_execute("UPDATE account SET balance = balance WHERE id = 2")
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(balances(&mut test.plain("a")), [900, 100]);
}
