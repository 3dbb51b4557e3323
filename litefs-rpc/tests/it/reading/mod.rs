//! Reads beside the writer: which commands are executed there, and their limits.

#![cfg(feature = "diesel")]

mod limits;
mod roles;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, ConnectionResult, SqliteConnection};
use libsqlite3_sys as _;
use litefs_rpc::client::{CallError, Client};
use litefs_rpc::server::{RoleGuard, Server, ServerConfig};
use litefs_rpc::sqlite::{Opened, SqliteExecutor};
use litefs_rpc::wire::{Command, Output, Reply, Request, RowSet, ServerError, Statement, Value};
use litefs_rpc::{Executor, Limits};

use crate::support::{FakeRoleGuard, begin, client, request, soon, statement};

/// A server over a real file, and the hook that its readers' connections run first.
struct TestServer {
    _dir: tempfile::TempDir,
    role_guard: Arc<FakeRoleGuard>,
    server: Server,
    opened: Arc<AtomicUsize>,
}

impl TestServer {
    async fn start(
        configure: impl FnOnce(&mut Limits),
        on_open: impl Fn() -> ConnectionResult<()> + Send + Sync + 'static,
    ) -> Self {
        Self::over(configure, on_open, |executor, _| executor).await
    }

    async fn over<E: Executor>(
        configure: impl FnOnce(&mut Limits),
        on_open: impl Fn() -> ConnectionResult<()> + Send + Sync + 'static,
        wrap: impl FnOnce(SqliteExecutor, &Arc<FakeRoleGuard>) -> E,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db").to_str().unwrap().to_owned();
        let mut conn = SqliteConnection::establish(&path).unwrap();
        conn.batch_execute(
            "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
        )
        .unwrap();
        let (file, opened) = (path.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&opened);
        let open_writer = Box::new(move || Opened::establish(&file));
        let open_reader = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let mut opened = Opened::establish(&path)?;
            // The first connection to a WAL creates its index; do that before the test.
            opened.connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
            on_open().map(|()| opened)
        });
        let executor = SqliteExecutor::new(open_writer, 1_000).reading_beside(open_reader);
        let role_guard = FakeRoleGuard::primary();
        let executor = wrap(executor, &role_guard);
        let fenced: Arc<dyn RoleGuard> = role_guard.clone();
        let mut config = ServerConfig::new("app.db");
        // The position is made up.
        config.prove_commits = false;
        configure(&mut config.limits);
        let server =
            Server::start("127.0.0.1:0".parse().unwrap(), config, fenced, executor).await.unwrap();
        Self { _dir: dir, role_guard, server, opened }
    }

    async fn plain() -> Self {
        Self::start(|_| {}, || Ok(())).await
    }

    async fn ask(&self, client: &Client, sql: &str, deadline: Instant) -> Result<Reply, CallError> {
        let link = client.connect(&self.server.address().to_string()).await?;
        link.write(read(sql), deadline).await
    }
}

fn read(sql: &str) -> Request {
    let statement = Statement { sql: sql.into(), params: vec![], cacheable: true };
    Request { work: Command::Query(statement), ..request("") }
}

fn integer(reply: Reply) -> i64 {
    match reply.answer {
        Output::Rows(RowSet { values, .. }) => match values.as_slice() {
            [Value::Integer(integer)] => *integer,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_read_runs_beside_an_open_transaction() {
    let test = TestServer::plain().await;
    let (owner, other) = (client(), client());
    let link = owner.connect(&test.server.address().to_string()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    link.step(session, statement("INSERT INTO t VALUES (?)"), soon()).await.unwrap();
    let count = "SELECT count(*) FROM t";
    assert_eq!(integer(test.ask(&other, count, soon()).await.unwrap()), 1);
    assert_eq!(
        integer(test.ask(&owner, count, soon()).await.unwrap()),
        1,
        "over the same connection"
    );
    link.finish(session, true, soon()).await.unwrap();
    assert_eq!(integer(test.ask(&other, count, soon()).await.unwrap()), 2);
}

#[tokio::test]
async fn without_readers_reads_queue_with_the_writes() {
    let test = TestServer::start(|limits| limits.readers = 0, || Ok(())).await;
    let client = client();
    let link = client.connect(&test.server.address().to_string()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    let read = test.ask(&client, "SELECT count(*) FROM t", soon());
    let mut read = std::pin::pin!(read);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut read).await.is_err());
    link.finish(session, false, soon()).await.unwrap();
    assert_eq!(integer(read.await.unwrap()), 1);
    assert_eq!(test.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn other_commands_run_on_the_writer_or_fail() {
    let test = TestServer::plain().await;
    let client = client();
    let returning =
        test.ask(&client, "INSERT INTO t VALUES (2) RETURNING x", soon()).await.unwrap();
    assert_eq!(integer(returning), 2);
    let behind_with = "WITH c AS (SELECT 3 AS x) INSERT INTO t SELECT x FROM c RETURNING x";
    assert_eq!(integer(test.ask(&client, behind_with, soon()).await.unwrap()), 3);
    assert_eq!(test.opened.load(Ordering::SeqCst), 0, "no command was a read");
    for sql in [
        "PRAGMA user_version",
        "SELECT count(*) FROM pragma_foreign_keys",
        "EXPLAIN PRAGMA query_only = 1",
    ] {
        // The last is refused. The writer must decide about each.
        let _ = test.ask(&client, sql, soon()).await;
    }
    assert_eq!(
        test.opened.load(Ordering::SeqCst),
        0,
        "PRAGMAs are read on the writer's connection"
    );
    for (sql, word) in [
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT 1; DELETE FROM t", "several statements"),
        ("SELECT 1; SELECT 2", "several statements"),
    ] {
        match test.ask(&client, sql, soon()).await {
            Err(CallError::Refused(ServerError::Denied { what })) => {
                assert!(what.contains(word), "{what}")
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    let count = test.ask(&client, "SELECT count(*) FROM t", soon()).await.unwrap();
    assert_eq!(integer(count), 3);
}

#[tokio::test]
async fn reads_are_answered_in_the_requested_form() {
    let test = TestServer::plain().await;
    let client = client();
    let link = client.connect(&test.server.address().to_string()).await.unwrap();
    let sql = || "SELECT x FROM t".to_owned();
    let executed = Command::Execute(Statement { sql: sql(), params: vec![], cacheable: true });
    for (work, expected) in [
        (executed, Output::Count(0)),
        (Command::Script(format!("{}; {}", sql(), sql())), Output::Done),
    ] {
        let reply = link.write(Request { work, ..request("") }, soon()).await.unwrap();
        assert_eq!((reply.answer, reply.position), (expected, test.role_guard.position().ok()));
    }
    assert_eq!(test.opened.load(Ordering::SeqCst), 1, "both were reads");
    let mixed = Command::Script(format!("{}; INSERT INTO t VALUES (2)", sql()));
    link.write(Request { work: mixed, ..request("") }, soon()).await.unwrap();
    assert_eq!(test.opened.load(Ordering::SeqCst), 1);
    let nothing = test.ask(&client, "SELECT x AS y FROM t WHERE 0", soon()).await.unwrap();
    assert_eq!(nothing.answer, Output::Rows(RowSet::default()));
}

#[tokio::test]
async fn errors_and_limits_are_those_of_the_writer() {
    let test = TestServer::plain().await;
    let client = client();
    let missing = test.ask(&client, "SELECT * FROM missing", soon()).await;
    assert!(
        matches!(
            &missing,
            Err(CallError::Refused(ServerError::Database(error)))
                if error.message.contains("no such table")
        ),
        "{missing:?}"
    );
    let large = test.ask(&client, "SELECT randomblob(2000)", soon()).await;
    assert!(matches!(large, Err(CallError::Refused(ServerError::TooLarge { .. }))), "{large:?}");
    assert_eq!(integer(test.ask(&client, "SELECT x FROM t", soon()).await.unwrap()), 1);
}

#[test]
fn an_executor_without_a_reader_factory_has_no_readers() {
    let executor = SqliteExecutor::new(Box::new(|| Opened::establish(":memory:")), 1_000);
    assert!(executor.readers().is_none());
}
