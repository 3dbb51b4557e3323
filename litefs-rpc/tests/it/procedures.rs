//! Procedures on the executor: one transaction, one outcome, and the connection is as before.

#![cfg(feature = "diesel")]

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sqlite::SqliteConnection;
use litefs_rpc::client::CallError;
use litefs_rpc::sqlite::{Opened, Procedure, Procedures, SqliteExecutor, to_diesel};
use litefs_rpc::wire::{
    Begin, BeginMode, Command, Delivery, Output, ProcedureFault, ProtocolVersion,
    RecordedTransaction, Reply, Request, RequestId, ServerError, Settings, Statement, Value,
};
use litefs_rpc::{CommitExpectation, Done, Executor};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{TestServer, begin, client, counting, soon};

diesel::table! {
    account {
        id -> Integer,
        balance -> BigInt,
    }
}

const SCHEMA: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
    CREATE TABLE child (
        id INTEGER PRIMARY KEY,
        account INTEGER REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED
    );
    INSERT INTO account VALUES (1, 100), (2, 0);
";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Transfer {
    from: i32,
    to: i32,
    amount: i64,
}

fn add(conn: &mut SqliteConnection, id: i32, amount: i64) -> QueryResult<i64> {
    diesel::update(account::table.find(id))
        .set(account::balance.eq(account::balance + amount))
        .returning(account::balance)
        .get_result(conn)
}

static TRANSFER: Procedure<Transfer, (i64, i64)> = Procedure::new("transfer", |conn, transfer| {
    let to = add(conn, transfer.to, transfer.amount)?;
    Ok((add(conn, transfer.from, -transfer.amount)?, to))
});

/// Runs a script, and returns an error of it.
static SCRIPT: Procedure<String, ()> = Procedure::new("script", |conn, sql| {
    add(conn, 2, 1)?;
    conn.batch_execute(&sql)
});

/// Runs a script whatever it comes to, and goes on.
static STUBBORN: Procedure<String, ()> = Procedure::new("stubborn", |conn, sql| {
    add(conn, 2, 1)?;
    let _ = conn.batch_execute(&sql);
    let _ = add(conn, 2, 10);
    Ok(())
});

static FAILING: Procedure<u8, ()> = Procedure::new("failing", |conn, which| {
    add(conn, 2, 1)?;
    Err(errors().swap_remove(which.into()))
});

static PANICKING: Procedure<(), ()> = Procedure::new("panicking", |conn, ()| {
    conn.transaction(|conn| add(conn, 2, 1))?;
    panic!("at the {}", "disco")
});

static NESTING: Procedure<bool, i64> = Procedure::new("nesting", |conn, keep| {
    add(conn, 2, 1)?;
    let inner = conn.transaction(|conn| {
        add(conn, 2, 10)?;
        if keep { Ok(()) } else { Err(Error::RollbackTransaction) }
    });
    assert_eq!(inner.is_ok(), keep);
    add(conn, 2, 100)
});

static LONG: Procedure<usize, String> = Procedure::new("long", |conn, length| {
    add(conn, 2, 1)?;
    Ok("x".repeat(length))
});

fn errors() -> Vec<Error> {
    let kinds = [
        DatabaseErrorKind::UniqueViolation,
        DatabaseErrorKind::ForeignKeyViolation,
        DatabaseErrorKind::NotNullViolation,
        DatabaseErrorKind::CheckViolation,
        DatabaseErrorKind::UnableToSendCommand,
        DatabaseErrorKind::SerializationFailure,
        DatabaseErrorKind::ReadOnlyTransaction,
        DatabaseErrorKind::RestrictViolation,
        DatabaseErrorKind::ExclusionViolation,
        DatabaseErrorKind::ClosedConnection,
    ];
    let mut errors = vec![
        Error::NotFound,
        Error::RollbackTransaction,
        Error::AlreadyInTransaction,
        Error::NotInTransaction,
        Error::BrokenTransactionManager,
        Error::QueryBuilderError("of the query".into()),
        Error::SerializationError("of the arguments".into()),
        Error::DeserializationError("of the result".into()),
    ];
    errors.extend(kinds.map(|kind| Error::DatabaseError(kind, Box::new("its message".to_owned()))));
    errors
}

struct Primary {
    _dir: TempDir,
    path: String,
    sqlite: SqliteConnection,
    executor: SqliteExecutor,
}

fn executor(path: &str, procedures: Arc<Procedures>) -> SqliteExecutor {
    let path = path.to_owned();
    SqliteExecutor::new(Box::new(move || Opened::establish(&path)), 1_000).procedures(procedures)
}

impl Primary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let mut sqlite = SqliteConnection::establish(&path).unwrap();
        sqlite.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
        sqlite.batch_execute(SCHEMA).unwrap();
        let procedures = Arc::new(Procedures::default());
        procedures.register(&TRANSFER);
        procedures.register(&SCRIPT);
        procedures.register(&STUBBORN);
        procedures.register(&FAILING);
        procedures.register(&PANICKING);
        procedures.register(&NESTING);
        procedures.register(&LONG);
        let executor = executor(&path, procedures);
        Self { _dir: dir, path, sqlite, executor }
    }

    fn balances(&mut self) -> Vec<i64> {
        account::table.select(account::balance).order(account::id).load(&mut self.sqlite).unwrap()
    }

    fn run<A, R>(&mut self, procedure: &Procedure<A, R>, args: &A) -> Result<R, ServerError>
    where
        A: Serialize + serde::de::DeserializeOwned,
        R: Serialize + serde::de::DeserializeOwned,
    {
        let done = self.executor.write(&request(procedure, args))?;
        Ok(result(procedure, &done))
    }

    /// What the executor's connection says.
    fn asked(&mut self, sql: &str) -> Value {
        let statement = Statement { sql: sql.into(), params: vec![], cacheable: false };
        let request = Request {
            id: RequestId::new(),
            delivery: Delivery::AtMostOnce,
            again: false,
            settings: Settings::default(),
            work: Command::Query(statement),
        };
        match self.executor.write(&request).unwrap().answer {
            Output::Rows(rows) => rows.values.into_iter().next().unwrap_or(Value::Null),
            other => panic!("{other:?}"),
        }
    }
}

fn work<A, R>(procedure: &Procedure<A, R>, args: &A) -> Command
where
    A: Serialize + serde::de::DeserializeOwned,
    R: Serialize + serde::de::DeserializeOwned,
{
    Command::Call(Arc::new(procedure.call(args).unwrap()))
}

fn request<A, R>(procedure: &Procedure<A, R>, args: &A) -> Request
where
    A: Serialize + serde::de::DeserializeOwned,
    R: Serialize + serde::de::DeserializeOwned,
{
    Request {
        id: RequestId::new(),
        delivery: Delivery::ExactlyOnce,
        again: false,
        settings: Settings { foreign_keys: true, ..Settings::default() },
        work: work(procedure, args),
    }
}

fn result<A, R>(procedure: &Procedure<A, R>, done: &Done) -> R
where
    A: Serialize + serde::de::DeserializeOwned,
    R: Serialize + serde::de::DeserializeOwned,
{
    match &done.answer {
        Output::Value(encoded) => procedure.result(encoded).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn fault(error: ServerError) -> ProcedureFault {
    match error {
        ServerError::Procedure { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

fn transfer(amount: i64) -> Transfer {
    Transfer { from: 1, to: 2, amount }
}

#[test]
fn x23_a_call_is_one_transaction_with_its_outcome() {
    let mut primary = Primary::new();
    let mut request = request(&TRANSFER, &transfer(30));
    let done = primary.executor.write(&request).unwrap();
    assert_eq!(result(&TRANSFER, &done), (70, 30));
    assert_eq!(done.wrote, CommitExpectation::Advances);
    assert_eq!((done.effects.changes, done.effects.total_changes), (1, 2));
    request.again = true;
    let repeated = primary.executor.write(&request).unwrap();
    assert_eq!((result(&TRANSFER, &repeated), repeated.effects), ((70, 30), done.effects));
    assert_eq!(primary.balances(), [70, 30]);
}

#[test]
fn x23_the_next_primary_has_the_outcome() {
    let mut primary = Primary::new();
    let mut request = request(&TRANSFER, &transfer(30));
    primary.executor.write(&request).unwrap();
    request.again = true;
    // It was deployed without the procedure.
    let mut next = executor(&primary.path, Arc::default());
    let done = next.write(&request).unwrap();
    assert_eq!(result(&TRANSFER, &done), (70, 30));
    request.id = RequestId::new();
    assert_eq!(fault(next.write(&request).unwrap_err()), ProcedureFault::Unknown);
    assert_eq!(primary.balances(), [70, 30]);
}

#[test]
fn x23_a_fenced_call_is_not_run() {
    let mut primary = Primary::new();
    let request = request(&TRANSFER, &transfer(30));
    primary.executor.resolve_outcome(request.id).unwrap();
    assert_eq!(primary.executor.write(&request).unwrap_err(), ServerError::Fenced);
    assert_eq!(primary.balances(), [100, 0]);
}

#[test]
fn x23_an_error_rolls_back_and_keeps_its_kind() {
    let mut primary = Primary::new();
    for (which, error) in errors().into_iter().enumerate() {
        let refusal = primary.run(&FAILING, &u8::try_from(which).unwrap()).unwrap_err();
        let ServerError::Database(arrived) = refusal else { panic!("{refusal:?}") };
        let arrived = to_diesel(arrived);
        assert_eq!(format!("{arrived:?}"), format!("{error:?}"));
        assert_eq!(primary.balances(), [100, 0]);
    }
    // Of SQLite itself: within the procedure, and by COMMIT.
    let refusal = primary.run(&TRANSFER, &transfer(101)).unwrap_err();
    assert!(refusal.to_string().contains("CHECK constraint failed"), "{refusal}");
    let orphan = "INSERT INTO child VALUES (1, 7)".to_owned();
    let refusal = primary.run(&SCRIPT, &orphan).unwrap_err();
    assert!(refusal.to_string().contains("FOREIGN KEY constraint failed"), "{refusal}");
    assert_eq!(primary.balances(), [100, 0]);
    assert_eq!(primary.run(&TRANSFER, &transfer(1)).unwrap(), (99, 1));
}

#[test]
fn x23_a_panic_rolls_back_and_the_executor_goes_on() {
    let mut primary = Primary::new();
    let refusal = primary.run(&PANICKING, &()).unwrap_err();
    assert_eq!(fault(refusal), ProcedureFault::Panicked { message: "at the disco".into() });
    assert_eq!(primary.balances(), [100, 0]);
    assert_eq!(primary.run(&TRANSFER, &transfer(1)).unwrap(), (99, 1));
}

#[test]
fn x23_a_differing_procedure_is_named_with_its_types() {
    static NEWER: Procedure<(Transfer, String), (i64, i64)> =
        Procedure::new("transfer", |_, _| Ok((0, 0)));
    static SECOND: Procedure<Transfer, (i64, i64)> =
        Procedure::new("transfer", |_, _| Ok((0, 0))).version(2);
    let mut primary = Primary::new();
    let refusal = primary.run(&NEWER, &(transfer(1), "note".into())).unwrap_err();
    assert_eq!(
        fault(refusal),
        ProcedureFault::Differs {
            there: "version 0, Transfer{from:i32, to:i32, amount:i64} -> (i64, i64)".into()
        }
    );
    let refusal = primary.run(&SECOND, &transfer(1)).unwrap_err();
    assert!(matches!(fault(refusal), ProcedureFault::Differs { .. }));
    assert_eq!(primary.balances(), [100, 0]);
}

#[test]
fn x23_transactions_within_are_savepoints() {
    let mut primary = Primary::new();
    assert_eq!(primary.run(&NESTING, &false).unwrap(), 101);
    assert_eq!(primary.run(&NESTING, &true).unwrap(), 212);
    assert_eq!(primary.balances(), [100, 212]);
}

#[test]
fn x23_a_procedure_cannot_end_its_transaction() {
    let mut primary = Primary::new();
    for sql in [
        "COMMIT",
        "ROLLBACK",
        "ROLLBACK; BEGIN",
        "END; UPDATE account SET balance = 7",
        "ROLLBACK; UPDATE account SET balance = 7",
        "ROLLBACK; BEGIN; UPDATE account SET balance = 7; COMMIT",
        "RELEASE litefs_procedure",
    ] {
        for procedure in [&SCRIPT, &STUBBORN] {
            let refusal = primary.run(procedure, &sql.to_owned()).unwrap_err();
            assert_eq!(fault(refusal), ProcedureFault::EndedTransaction, "{sql}, {procedure:?}");
            assert_eq!(primary.balances(), [100, 0], "{sql}, {procedure:?}");
        }
    }
    assert_eq!(primary.run(&TRANSFER, &transfer(1)).unwrap(), (99, 1));
}

#[test]
fn x23_what_it_leaves_on_the_connection_is_gone() {
    let mut primary = Primary::new();
    for (sql, question, expected) in [
        ("PRAGMA query_only = ON", "PRAGMA query_only", Value::Integer(0)),
        ("PRAGMA busy_timeout = 77", "PRAGMA busy_timeout", Value::Integer(0)),
        ("PRAGMA legacy_alter_table = ON", "PRAGMA legacy_alter_table", Value::Integer(0)),
        (
            "CREATE TEMP TABLE account (id, balance)",
            "SELECT balance FROM account WHERE id = 1",
            Value::Integer(100),
        ),
        (
            "ATTACH ':memory:' AS other",
            "SELECT count(*) FROM pragma_database_list WHERE name = 'other'",
            Value::Integer(0),
        ),
    ] {
        // With `query_only` the outcome cannot be stored, and nothing is applied.
        let _ = primary.run(&SCRIPT, &sql.to_owned());
        assert_eq!(primary.asked(question), expected, "{sql}");
    }
}

#[test]
fn x23_a_result_above_the_limit_is_not_applied() {
    let mut primary = Primary::new();
    assert_eq!(primary.run(&LONG, &900).unwrap().len(), 900);
    let refusal = primary.run(&LONG, &1_001).unwrap_err();
    assert!(matches!(refusal, ServerError::TooLarge { limit: 1_000, .. }), "{refusal:?}");
    assert_eq!(primary.balances(), [100, 1]);
}

#[test]
fn x23_within_a_transaction_it_is_a_step() {
    let mut primary = Primary::new();
    let id = RequestId::new();
    primary.executor.begin(&Settings::default(), BeginMode::Immediate).unwrap();
    let done = primary.executor.step(&work(&TRANSFER, &transfer(10))).unwrap();
    assert_eq!(result(&TRANSFER, &done), (90, 10));
    primary.executor.step(&work(&FAILING, &0)).unwrap_err();
    primary.executor.step(&work(&PANICKING, &())).unwrap_err();
    let done = primary.executor.step(&work(&NESTING, &false)).unwrap();
    assert_eq!(result(&NESTING, &done), 111);
    assert!(primary.executor.in_transaction());
    primary.executor.commit(Some(id)).unwrap();
    assert_eq!(primary.balances(), [90, 111]);
}

#[test]
fn x23_a_step_that_ends_the_transaction_loses_it() {
    for sql in ["COMMIT", "ROLLBACK", "ROLLBACK; BEGIN"] {
        let mut primary = Primary::new();
        primary.executor.begin(&Settings::default(), BeginMode::Immediate).unwrap();
        primary.executor.step(&work(&TRANSFER, &transfer(10))).unwrap();
        let refusal = primary.executor.step(&work(&SCRIPT, &sql.to_owned())).unwrap_err();
        assert_eq!(fault(refusal), ProcedureFault::EndedTransaction, "{sql}");
        assert!(!primary.executor.in_transaction(), "{sql}");
        primary.executor.rollback();
        assert_eq!(primary.balances(), [100, 0], "{sql}");
        assert_eq!(primary.run(&TRANSFER, &transfer(1)).unwrap(), (99, 1));
    }
}

/// A server behind a peer that speaks only version 1 of the protocol.
async fn of_version_1(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        // The hello: its length, eight fixed bytes, the oldest version, the newest.
        let mut hello = [0; 14];
        client.read_exact(&mut hello).await.unwrap();
        hello[13] = 1;
        server.write_all(&hello).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    address
}

#[tokio::test]
async fn x23_a_server_without_procedures_is_sent_none() {
    let server = TestServer::start(|_| {}, counting()).await;
    let address = of_version_1(server.address()).await;
    let connection = client().connect(&address).await.unwrap();
    assert_eq!(connection.version(), ProtocolVersion::V1);
    let old = |result: Result<Reply, CallError>| match result {
        Err(CallError::Refused(refusal)) => {
            assert!(refusal.to_string().contains(&address), "{refusal}");
            assert_eq!(fault(refusal), ProcedureFault::OldProtocol);
        }
        other => panic!("{other:?}"),
    };
    let work = || work(&TRANSFER, &transfer(1));
    old(connection.write(request(&TRANSFER, &transfer(1)), soon()).await);
    let first = Begin { first: Some(work()), ..begin() };
    old(connection.begin(first, soon()).await.map(|_| unreachable!("it was sent")));
    let (session, _) = connection.begin(begin(), soon()).await.unwrap();
    old(connection.step(session, work(), soon()).await);
    connection.finish(session, true, soon()).await.unwrap();
    // The same for a recorded transaction: nothing is applied, and it may run again.
    let record = RecordedTransaction { snapshot: None, steps: vec![], next: None };
    let mut write = request(&TRANSFER, &transfer(1));
    write.work = Command::Transaction(std::sync::Arc::new(record));
    let refused = connection.write(write, soon()).await.unwrap_err();
    let lost = matches!(refused, CallError::Refused(ServerError::SessionLost { .. }));
    assert!(lost, "{refused:?}");
}
