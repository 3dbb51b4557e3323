//! Reads during changes of the role, handoffs and commits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use diesel::ConnectionError;
use litefs_core::Txid;
use litefs_rpc::client::CallError;
use litefs_rpc::server::RoleGuard;
use litefs_rpc::sqlite::SqliteExecutor;
use litefs_rpc::wire::{
    BeginMode, Command, Outcome, ReplicaReport, Request, RequestId, ServerError, Settings,
};
use litefs_rpc::{CommitExpectation, Done, Executor, Readers};

use crate::support::{FakeRoleGuard, client, request, soon};

use super::{TestServer, integer};

#[tokio::test]
async fn connections_are_reused_within_one_role_only() {
    let test = TestServer::plain().await;
    let client = client();
    for _ in 0..5 {
        test.ask(&client, "SELECT x FROM t", soon()).await.unwrap();
    }
    assert_eq!(test.opened.load(Ordering::SeqCst), 1);
    test.role_guard.demote();
    let refused = test.ask(&client, "SELECT x FROM t", soon()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(ServerError::NotPrimary { .. }))),
        "{refused:?}"
    );
    test.role_guard.promote_again();
    test.ask(&client, "SELECT x FROM t", soon()).await.unwrap();
    assert_eq!(test.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_read_during_a_demotion_is_redirected() {
    let role_guard = Arc::new(OnceLock::<Arc<FakeRoleGuard>>::new());
    let overtaken = Arc::clone(&role_guard);
    let test = TestServer::start(
        |_| {},
        move || {
            overtaken.get().unwrap().demote();
            Ok(())
        },
    )
    .await;
    assert!(role_guard.set(Arc::clone(&test.role_guard)).is_ok());
    let refused = test.ask(&client(), "SELECT x FROM t", soon()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(ServerError::NotPrimary { .. }))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_failed_read_checks_the_role_before_its_reply() {
    let test = TestServer::start(
        |_| {},
        || Err(ConnectionError::BadConnection("unable to open database file".into())),
    )
    .await;
    let failed = test.ask(&client(), "SELECT x FROM t", soon()).await;
    assert!(matches!(failed, Err(CallError::Refused(ServerError::Io { .. }))), "{failed:?}");
    // As when LiteFS dies: SQLite fails first, and the role is known after a query.
    test.role_guard.demoted_when_asked.store(true, Ordering::SeqCst);
    let failed = test.ask(&client(), "SELECT x FROM t", soon()).await;
    assert!(
        matches!(failed, Err(CallError::Refused(ServerError::NotPrimary { .. }))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn reads_wait_for_the_result_of_a_handoff() {
    let test = Arc::new(TestServer::plain().await);
    // A successor that accepts the connection and does not answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let report = ReplicaReport {
        node: "b".into(),
        address: Some(silent.local_addr().unwrap().to_string()),
        position: test.role_guard.position().ok(),
    };
    let client = client();
    let link = client.connect(&test.server.address().to_string()).await.unwrap();
    link.follow(report, Txid::new(0), soon()).await.unwrap();
    let handoff = tokio::spawn({
        let test = Arc::clone(&test);
        async move { test.server.handoff(None, Instant::now() + Duration::from_millis(300)).await }
    });
    while !test.server.is_handing_off() {
        assert!(!handoff.is_finished());
        tokio::task::yield_now().await;
    }
    assert_eq!(integer(test.ask(&client, "SELECT x FROM t", soon()).await.unwrap()), 1);
    assert!(!test.server.is_handing_off());
    assert!(handoff.await.unwrap().is_err());
    assert_eq!(test.opened.load(Ordering::SeqCst), 0, "it was queued behind the handoff");
}

/// Blocks between SQLite's commit and LiteFS's.
struct Halting {
    executor: SqliteExecutor,
    role_guard: Arc<FakeRoleGuard>,
    halt: Arc<Barrier>,
}

impl Executor for Halting {
    fn write(&mut self, request: &Request) -> Result<Done, ServerError> {
        let done = self.executor.write(request);
        self.halt.wait();
        self.halt.wait();
        self.role_guard.commit();
        done
    }

    fn resolve_outcome(
        &mut self,
        id: RequestId,
    ) -> Result<(Outcome, CommitExpectation), ServerError> {
        self.executor.resolve_outcome(id)
    }

    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), ServerError> {
        self.executor.begin(settings, mode)
    }

    fn step(&mut self, work: &Command) -> Result<Done, ServerError> {
        self.executor.step(work)
    }

    fn in_transaction(&mut self) -> bool {
        self.executor.in_transaction()
    }

    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError> {
        self.executor.commit(keep)
    }

    fn rollback(&mut self) {
        self.executor.rollback();
    }

    fn readers(&self) -> Option<Arc<dyn Readers>> {
        self.executor.readers()
    }
}

#[tokio::test]
async fn a_read_is_never_ahead_of_its_position() {
    let halt = Arc::new(Barrier::new(2));
    let halting = Arc::clone(&halt);
    let wrap = |executor, role_guard: &Arc<FakeRoleGuard>| Halting {
        executor,
        role_guard: Arc::clone(role_guard),
        halt: halting,
    };
    let test = Arc::new(TestServer::over(|_| {}, || Ok(()), wrap).await);
    let meet = || {
        let halt = Arc::clone(&halt);
        tokio::task::spawn_blocking(move || halt.wait())
    };
    let address = test.server.address().to_string();
    let write = tokio::spawn(async move {
        let client = client();
        let link = client.connect(&address).await?;
        link.write(request("INSERT INTO t VALUES (?)"), soon()).await
    });
    meet().await.unwrap();
    // SQLite has committed, LiteFS has not.
    let mut read = tokio::spawn({
        let test = Arc::clone(&test);
        async move { test.ask(&client(), "SELECT count(*) FROM t", soon()).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(50), &mut read).await;
    assert!(early.is_err(), "{early:?}");
    meet().await.unwrap();
    let read = read.await.unwrap().unwrap();
    assert_eq!(read.position, write.await.unwrap().unwrap().position);
    assert_eq!(integer(read), 2);
}
