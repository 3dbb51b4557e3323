//! A transaction that ran on a copy of the database is run again on the executor: it is applied if
//! every result is the same, and leaves nothing behind otherwise.

#![cfg(feature = "diesel")]

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_rpc::Executor;
use litefs_rpc::sqlite::{Opened, SqliteExecutor, run};
use litefs_rpc::wire::{
    BeginMode, Command, Delivery, Output, RecordedStep, RecordedTransaction, Request, RequestId,
    Seen, ServerError, Settings, Statement, Value,
};
use tempfile::TempDir;

const SCHEMA: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE entry (id INTEGER PRIMARY KEY, what TEXT UNIQUE);
    INSERT INTO account VALUES (1, 100), (2, 0);
";

/// A primary's executor, and a copy of its database as a replica has it.
struct Pair {
    _dir: TempDir,
    primary: SqliteConnection,
    replica: SqliteConnection,
    executor: SqliteExecutor,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = dir.path().join(name).to_str().unwrap().to_owned();
            let mut sqlite = SqliteConnection::establish(&path).unwrap();
            sqlite.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
            sqlite.batch_execute(SCHEMA).unwrap();
            (path, sqlite)
        };
        let ((path, primary), (_, replica)) = (open("primary"), open("replica"));
        let executor = SqliteExecutor::new(Box::new(move || Opened::establish(&path)), 10_000);
        Self { _dir: dir, primary, replica, executor }
    }

    /// Runs commands on the replica and takes them back.
    fn record(&mut self, all: Vec<Command>) -> RecordedTransaction {
        self.replica.batch_execute("BEGIN").unwrap();
        let steps = all.into_iter().map(|work| {
            let seen = match run(&mut self.replica, &work, 10_000) {
                Err(ServerError::Database(error)) => Seen::of(&Err(error), false),
                output => Seen::of(&Ok(output.unwrap()), false),
            };
            let reads = matches!(work, Command::Query(_));
            RecordedStep { work, reads, seen }
        });
        let steps = steps.collect();
        self.replica.batch_execute("ROLLBACK").unwrap();
        RecordedTransaction { snapshot: None, steps, next: None }
    }

    fn primary_balances(&mut self) -> Vec<Value> {
        let all = query("SELECT balance FROM account ORDER BY id", vec![]);
        match run(&mut self.primary, &all, 10_000).unwrap() {
            Output::Rows(rows) => rows.values,
            other => panic!("{other:?}"),
        }
    }
}

fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), params, cacheable: true }
}

fn execute(sql: &str) -> Command {
    Command::Execute(statement(sql, vec![]))
}

fn query(sql: &str, params: Vec<Value>) -> Command {
    Command::Query(statement(sql, params))
}

fn request(record: RecordedTransaction) -> Request {
    Request {
        id: RequestId::new(),
        delivery: Delivery::ExactlyOnce,
        again: false,
        settings: Settings::default(),
        work: Command::Transaction(Arc::new(record)),
    }
}

fn transfer() -> Vec<Command> {
    vec![
        query("SELECT balance FROM account WHERE id = ?", vec![Value::Integer(1)]),
        execute("UPDATE account SET balance = balance - 30 WHERE id = 1"),
        execute("UPDATE account SET balance = balance + 30 WHERE id = 2"),
    ]
}

#[test]
fn x13_equal_results_are_applied_once() {
    let mut pair = Pair::new();
    let record = pair.record(transfer());
    let mut request = request(record);
    let done = pair.executor.write(&request).unwrap();
    assert_eq!(done.answer, Output::Done);
    assert_eq!(done.effects.total_changes, 2);
    assert_eq!(pair.primary_balances(), [Value::Integer(70), Value::Integer(30)]);
    request.again = true;
    assert_eq!(pair.executor.write(&request).unwrap().answer, Output::Done);
    assert_eq!(pair.primary_balances(), [Value::Integer(70), Value::Integer(30)]);
}

#[test]
fn x14_only_a_change_to_what_was_seen_is_a_conflict() {
    let mut pair = Pair::new();
    let record = pair.record(transfer());
    pair.primary.batch_execute("INSERT INTO entry (what) VALUES ('unrelated')").unwrap();
    pair.executor.write(&request(record.clone())).unwrap();
    assert_eq!(pair.primary_balances(), [Value::Integer(70), Value::Integer(30)]);
    // Its own change is one to what the same record has seen.
    let conflict = pair.executor.write(&request(record)).unwrap_err();
    assert!(matches!(conflict, ServerError::Conflict { step: 0, .. }), "{conflict:?}");
    assert_eq!(pair.primary_balances(), [Value::Integer(70), Value::Integer(30)]);
}

#[test]
fn x14_counts_emptiness_and_errors_are_seen() {
    for (seen, change) in [
        (execute("UPDATE account SET balance = 1 WHERE balance = 0"), "DELETE FROM account"),
        (query("SELECT id FROM entry", vec![]), "INSERT INTO entry VALUES (1, 'new')"),
        (execute("INSERT INTO entry VALUES (7, 'x')"), "INSERT INTO entry VALUES (7, 'y')"),
        (execute("INSERT INTO account VALUES (1, 1)"), "DELETE FROM account WHERE id = 1"),
    ] {
        let mut pair = Pair::new();
        let record = pair.record(vec![seen, execute("INSERT INTO entry (what) VALUES ('late')")]);
        pair.executor.write(&request(record.clone())).unwrap();
        let mut pair = Pair::new();
        pair.primary.batch_execute(change).unwrap();
        let conflict = pair.executor.write(&request(record)).unwrap_err();
        assert!(matches!(conflict, ServerError::Conflict { step: 0, .. }), "{conflict:?}");
        let late = query("SELECT 1 FROM entry WHERE what = 'late'", vec![]);
        let Output::Rows(rows) = run(&mut pair.primary, &late, 100).unwrap() else { panic!() };
        assert!(rows.is_empty(), "{change}: nothing of it is applied");
    }
}

#[test]
fn x14_a_conflict_in_a_group_touches_no_other_member() {
    let mut pair = Pair::new();
    let record = pair.record(transfer());
    let all = [request(record.clone()), request(record)];
    assert!(all.iter().all(|request| pair.executor.may_share(request)));
    assert!(pair.executor.open_group(&Settings::default()).unwrap());
    assert!(pair.executor.join(&all[0]).unwrap().is_ok());
    let second = pair.executor.join(&all[1]).unwrap().unwrap_err();
    assert!(matches!(second, ServerError::Conflict { step: 0, .. }), "{second:?}");
    pair.executor.close_group().unwrap();
    assert_eq!(pair.primary_balances(), [Value::Integer(70), Value::Integer(30)]);
}

#[test]
fn x24_savepoints_of_a_record_keep_their_meaning() {
    let mut pair = Pair::new();
    let record = pair.record(vec![
        execute("UPDATE account SET balance = 1 WHERE id = 1"),
        Command::Script("SAVEPOINT s".into()),
        execute("UPDATE account SET balance = 2 WHERE id = 2"),
        Command::Script("ROLLBACK TO s".into()),
        Command::Script("RELEASE s".into()),
    ]);
    pair.executor.write(&request(record)).unwrap();
    assert_eq!(pair.primary_balances(), [Value::Integer(1), Value::Integer(0)]);
}

#[test]
fn x16_a_session_goes_on_from_the_recorded_beginning() {
    let mut pair = Pair::new();
    let mut record = pair.record(transfer());
    record.next = Some(Box::new(query("SELECT balance FROM account WHERE id = 2", vec![])));
    let first = Command::Transaction(Arc::new(record));
    for (changed, balance) in [(false, 30), (true, 30)] {
        if changed {
            pair.primary.batch_execute("UPDATE account SET balance = 5 WHERE id = 1").unwrap();
        }
        pair.executor.begin(&Settings::default(), BeginMode::Immediate).unwrap();
        let step = pair.executor.step(&first);
        if changed {
            assert!(matches!(step, Err(ServerError::Conflict { step: 0, .. })), "{step:?}");
            assert!(!pair.executor.in_transaction());
        } else {
            let Output::Rows(rows) = step.unwrap().answer else { panic!("no rows") };
            assert_eq!(rows.values, [Value::Integer(balance)]);
            pair.executor.rollback();
        }
    }
    assert_eq!(pair.primary_balances(), [Value::Integer(5), Value::Integer(0)]);
}

#[test]
fn s4_a_record_reaches_nothing_that_a_statement_does_not() {
    for work in [
        execute("ATTACH 'x' AS y"),
        execute("COMMIT"),
        Command::Script("COMMIT; BEGIN".into()),
        Command::Script("RELEASE litefs_one".into()),
        Command::Script("DELETE FROM account".into()),
        Command::Transaction(Arc::new(RecordedTransaction {
            snapshot: None,
            steps: vec![],
            next: None,
        })),
    ] {
        let mut pair = Pair::new();
        let seen = Seen::of(&Ok(Output::Done), false);
        let steps = vec![RecordedStep { work, reads: false, seen }];
        let record = RecordedTransaction { snapshot: None, steps, next: None };
        let refused = pair.executor.write(&request(record)).unwrap_err();
        assert!(matches!(refused, ServerError::Denied { .. }), "{refused:?}");
    }
}
