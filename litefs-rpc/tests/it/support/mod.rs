//! Helpers that the tests of client and server share: an executor instead of SQLite and a role
//! guard that the test controls.

// Each test uses a part of it, and clippy does not treat helpers as tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use litefs_core::{Checksum, Position, Role, RoleStamp, RoleState, Txid, UnconfirmedCommit};
use litefs_rpc::client::{Client, ClientConfig};
use litefs_rpc::server::{RoleGuard, Server, ServerConfig};
use litefs_rpc::wire::{
    Begin, BeginMode, Command, Delivery, Outcome, Output, PrimaryHint, Request, RequestId,
    ServerError, SessionCounters, Settings, Statement, Value,
};
use litefs_rpc::{CommitExpectation, Done, Executor, GroupAborted};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A node's role, set by the test.
pub(crate) struct FakeRoleGuard {
    pub role: watch::Sender<RoleState>,
    pub txid: AtomicU64,
    pub hint: Mutex<Option<PrimaryHint>>,
    /// The role has changed without a notice to the server.
    pub demoted_when_asked: AtomicBool,
    /// LiteFS drops every commit.
    pub drops_commits: AtomicBool,
    /// The number of terms that the executor was notified of.
    pub terms: AtomicU64,
    pub unconfirmed_commit: UnconfirmedCommit,
}

impl FakeRoleGuard {
    pub(crate) fn primary() -> Arc<Self> {
        let role = watch::Sender::new(RoleState::new(Role::Primary, 1));
        Arc::new(Self {
            role,
            txid: AtomicU64::new(1),
            hint: Mutex::default(),
            demoted_when_asked: AtomicBool::new(false),
            drops_commits: AtomicBool::new(false),
            terms: AtomicU64::new(0),
            unconfirmed_commit: UnconfirmedCommit::default(),
        })
    }

    pub(crate) fn demote(&self) {
        self.role.send_modify(|state| {
            state.role = Role::Unknown;
            state.epoch += 1;
        });
    }

    pub(crate) fn promote_again(&self) {
        self.role.send_modify(|state| {
            state.role = Role::Primary;
            state.epoch += 1;
        });
    }

    pub(crate) fn commit(&self) {
        self.txid.fetch_add(1, Ordering::SeqCst);
    }
}

impl RoleGuard for FakeRoleGuard {
    fn writable(&self) -> Option<RoleStamp> {
        let state = self.role.borrow();
        (state.role == Role::Primary).then(|| state.stamp())
    }

    fn holds(&self, stamp: RoleStamp) -> bool {
        self.role.borrow().stamp() == stamp
    }

    fn position(&self) -> Result<Position, String> {
        let txid = self.txid.load(Ordering::SeqCst);
        Ok(Position { txid: Txid::new(txid), checksum: Checksum::new(txid) })
    }

    fn unconfirmed_commit(&self) -> &UnconfirmedCommit {
        &self.unconfirmed_commit
    }

    fn hint(&self) -> Option<PrimaryHint> {
        self.hint.lock().unwrap().clone()
    }

    fn changes(&self) -> watch::Receiver<RoleState> {
        self.role.subscribe()
    }

    fn positions(&self) -> watch::Receiver<Option<Position>> {
        watch::channel(self.position().ok()).1
    }

    fn promote(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("not in this test".to_owned()) })
    }

    fn confirm(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.demoted_when_asked.load(Ordering::SeqCst) {
                self.demote();
            }
        })
    }
}

pub(crate) type Run = Box<dyn FnMut(&str) -> Result<Output, ServerError> + Send>;

/// Runs a closure for each statement and commits through the role guard.
pub(crate) struct FakeExecutor {
    pub role_guard: Arc<FakeRoleGuard>,
    pub run: Run,
    pub open: bool,
    pub rolled_back: mpsc::Sender<()>,
    pub kept: HashMap<RequestId, Result<Done, ServerError>>,
    /// The groups that were committed together.
    pub groups: mpsc::Sender<Vec<String>>,
    pub group: Vec<String>,
}

impl FakeExecutor {
    /// A text that begins with "nothing" changes nothing.
    fn done(&mut self, work: &Command) -> Result<Done, ServerError> {
        let sql = work.texts().next().unwrap_or_default().to_owned();
        let answer = (self.run)(&sql)?;
        let unchanged = sql.starts_with("nothing");
        let wrote =
            if unchanged { CommitExpectation::Unchanged } else { CommitExpectation::Advances };
        Ok(Done::new(answer, SessionCounters::default(), wrote))
    }
}

impl Executor for FakeExecutor {
    fn may_share(&mut self, request: &Request) -> bool {
        request.work.texts().any(|sql| sql.starts_with("shared"))
    }

    fn open_group(&mut self, _: &Settings) -> Result<bool, ServerError> {
        self.open = true;
        self.group.clear();
        Ok(true)
    }

    /// A statement that contains "apart" aborts its group.
    fn join(&mut self, request: &Request) -> Result<Result<Done, ServerError>, GroupAborted> {
        let sql = request.work.texts().next().unwrap_or_default().to_owned();
        self.group.push(sql.clone());
        if sql.contains("apart") { Err(GroupAborted) } else { Ok(self.done(&request.work)) }
    }

    fn close_group(&mut self) -> Result<CommitExpectation, GroupAborted> {
        self.open = false;
        self.role_guard.commit();
        let _ = self.groups.send(std::mem::take(&mut self.group));
        Ok(CommitExpectation::Advances)
    }

    fn write(&mut self, request: &Request) -> Result<Done, ServerError> {
        if request.again
            && let Some(kept) = self.kept.get(&request.id)
        {
            return kept.clone();
        }
        let done = self.done(&request.work)?;
        if done.wrote == CommitExpectation::Unchanged {
            return Ok(done);
        }
        if !self.role_guard.drops_commits.load(Ordering::SeqCst) {
            self.role_guard.commit();
        }
        let mut kept = done.clone();
        kept.wrote = CommitExpectation::Unchanged;
        self.kept.insert(request.id, Ok(kept));
        Ok(done)
    }

    fn term_started(&mut self) {
        self.role_guard.terms.fetch_add(1, Ordering::SeqCst);
    }

    fn resolve_outcome(
        &mut self,
        id: RequestId,
    ) -> Result<(Outcome, CommitExpectation), ServerError> {
        let kept = self.kept.entry(id).or_insert(Err(ServerError::Fenced));
        Ok(match kept {
            Ok(done) => {
                (Outcome::Applied(done.answer.clone(), done.effects), CommitExpectation::Unchanged)
            }
            Err(_) => {
                self.role_guard.commit();
                (Outcome::NotApplied, CommitExpectation::Advances)
            }
        })
    }

    fn begin(&mut self, _: &Settings, _: BeginMode) -> Result<(), ServerError> {
        self.open = true;
        Ok(())
    }

    fn step(&mut self, work: &Command) -> Result<Done, ServerError> {
        self.done(work)
    }

    fn in_transaction(&mut self) -> bool {
        self.open
    }

    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError> {
        self.open = false;
        self.role_guard.commit();
        let done = |wrote| Done::new(Output::Done, SessionCounters::default(), wrote);
        self.kept.extend(keep.map(|id| (id, Ok(done(CommitExpectation::Unchanged)))));
        Ok(done(CommitExpectation::Advances))
    }

    fn rollback(&mut self) {
        self.open = false;
        let _ = self.rolled_back.send(());
    }
}

pub(crate) struct TestServer {
    pub role_guard: Arc<FakeRoleGuard>,
    pub server: Server,
    pub rolled_back: mpsc::Receiver<()>,
    pub groups: mpsc::Receiver<Vec<String>>,
}

impl TestServer {
    pub(crate) async fn start(configure: impl FnOnce(&mut ServerConfig), run: Run) -> Self {
        Self::fenced(FakeRoleGuard::primary(), configure, run).await
    }

    pub(crate) async fn fenced(
        role_guard: Arc<FakeRoleGuard>,
        configure: impl FnOnce(&mut ServerConfig),
        run: Run,
    ) -> Self {
        let (sender, rolled_back) = mpsc::channel();
        let (committed, groups) = mpsc::channel();
        let executor = FakeExecutor {
            role_guard: Arc::clone(&role_guard),
            run,
            open: false,
            rolled_back: sender,
            kept: HashMap::new(),
            groups: committed,
            group: Vec::new(),
        };
        let mut config = ServerConfig::new("app.db");
        configure(&mut config);
        let fenced: Arc<dyn RoleGuard> = role_guard.clone();
        let server =
            Server::start("127.0.0.1:0".parse().unwrap(), config, fenced, executor).await.unwrap();
        Self { role_guard, server, rolled_back, groups }
    }

    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    pub(crate) async fn wait_for_rollback(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.rolled_back.try_recv().is_err() {
            assert!(Instant::now() < deadline, "the transaction was not rolled back");
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn counting() -> Run {
    Box::new(|_| Ok(Output::Count(1)))
}

pub(crate) fn client() -> Client {
    Client::new(ClientConfig::new("app.db"))
}

pub(crate) fn statement(sql: &str) -> Command {
    Command::Execute(Statement {
        sql: sql.into(),
        params: vec![Value::Integer(1)],
        cacheable: true,
    })
}

pub(crate) fn request(sql: &str) -> Request {
    let delivery = Delivery::AtMostOnce;
    Request {
        id: RequestId::new(),
        delivery,
        again: false,
        settings: Settings::default(),
        work: statement(sql),
    }
}

pub(crate) fn begin() -> Begin {
    Begin {
        id: RequestId::new(),
        delivery: Delivery::ExactlyOnce,
        settings: Settings::default(),
        mode: BeginMode::Immediate,
        expected: None,
        savepoints: vec![],
        first: None,
    }
}

pub(crate) fn soon() -> std::time::Instant {
    std::time::Instant::now() + TIMEOUT
}
