use std::sync::Arc;
use std::time::{Duration, Instant};

use litefs_core::{Position, Txid};
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::ServerConfig;
use super::handoff::handoff_failed;
use super::queue::Queue;
use super::reading::Reading;
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use super::sessions::{ConnectionId, Ended, Sessions};
use super::writer::{Job, Step, Write};
use crate::service::Forward;
use crate::wire::{
    Begin, Command, PrimaryReport, ReplicaReport, Reply, Request, RequestId, ServerError, SessionId, Settled,
};

/// What all connections of a server share.
pub(super) struct Node {
    pub(super) config: Arc<ServerConfig>,
    pub(super) role_guard: Arc<dyn RoleGuard>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) queue: Arc<Queue>,
    pub(super) reading: Option<Arc<Reading>>,
    pub(super) replicas: Arc<Replicas>,
}

impl Drop for Node {
    /// Nobody is left who could ask for anything.
    fn drop(&mut self) {
        self.queue.end();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("database", &self.config.database).finish_non_exhaustive()
    }
}

impl Node {
    pub(super) async fn handoff(&self, to: Option<String>, deadline: Instant) -> Result<String, ServerError> {
        // A node that has just become the primary does not know its followers yet.
        let left = deadline.saturating_duration_since(Instant::now());
        self.replicas.appear(to.as_deref(), Instant::now() + NO_NEWS.min(left / 2)).await;
        let (respond, response) = oneshot::channel();
        self.queue.push(Job::Handoff { to, deadline, respond })?;
        answered(response).await
    }
}

/// Serves the requests of one connection: checks them, queues them, awaits the writer's answer.
#[derive(Clone)]
pub(super) struct Handler {
    connection: ConnectionId,
    node: Arc<Node>,
}

/// How long a replica that follows waits for news before it is told that there is none.
const NO_NEWS: Duration = Duration::from_secs(1);

impl Handler {
    pub(super) fn new(connection: ConnectionId, node: Arc<Node>) -> Self {
        Self { connection, node }
    }

    /// Refused before it is queued, where that can be told without the writer.
    fn admit(&self, work: Option<&Command>) -> Result<(), ServerError> {
        if self.node.role_guard.writable().is_none() {
            return Err(ServerError::NotPrimary { hint: self.node.role_guard.hint() });
        }
        work.map_or(Ok(()), |work| self.node.config.limits.check(work))
    }

    async fn in_session(
        &self,
        session: SessionId,
        step: impl FnOnce(oneshot::Sender<Result<Reply, ServerError>>) -> Step,
    ) -> Result<Reply, ServerError> {
        let (respond, response) = oneshot::channel();
        self.node.sessions.send(session, self.connection, step(respond))?;
        // The writer drops unanswered steps only with the session itself.
        response
            .await
            .unwrap_or_else(|_| Err(ServerError::SessionLost { reason: self.node.sessions.reason(session) }))
    }
}

/// The writer answers everything it takes, so a dropped answer means that it panicked or is gone.
async fn answered<T>(response: oneshot::Receiver<Result<T, ServerError>>) -> Result<T, ServerError> {
    response.await.unwrap_or_else(|_| Err(ServerError::Unconfirmed { reason: "the writer ended".into() }))
}

impl Forward for Handler {
    async fn write(self, context: Context, request: Request) -> Result<Reply, ServerError> {
        self.admit(Some(&request.work))?;
        let request = Arc::new(request);
        if let Some(reading) = self.node.reading.as_ref().filter(|reading| reading.takes(&request.work))
            && let Some(reply) = reading.read(&request, context.deadline).await?
        {
            return Ok(reply);
        }
        let request = Arc::unwrap_or_clone(request);
        let (respond, response) = oneshot::channel();
        self.node.queue.push(Job::Write(Write { request, deadline: context.deadline, respond }))?;
        answered(response).await
    }

    async fn begin(
        self,
        context: Context,
        begin: Begin,
    ) -> Result<(SessionId, Option<Result<Reply, ServerError>>), ServerError> {
        self.admit(begin.first.as_ref())?;
        let opened = self.node.sessions.open(self.connection);
        let id = opened.id;
        let (respond, response) = oneshot::channel();
        let job = Job::Begin { begin, deadline: context.deadline, opened, respond };
        if let Err(refusal) = self.node.queue.push(job) {
            self.node.sessions.end(id, Ended::Finished);
            return Err(refusal);
        }
        answered(response).await
    }

    async fn step(self, _: Context, session: SessionId, work: Command) -> Result<Reply, ServerError> {
        self.node.config.limits.check(&work)?;
        self.in_session(session, |respond| Step::Run { work, respond }).await
    }

    async fn finish(self, _: Context, session: SessionId, commit: bool) -> Result<Reply, ServerError> {
        self.in_session(session, |respond| Step::Finish { commit, respond }).await
    }

    async fn outcome(self, context: Context, id: RequestId) -> Result<Settled, ServerError> {
        self.admit(None)?;
        let (respond, response) = oneshot::channel();
        self.node.queue.push(Job::Settle { id, deadline: context.deadline, respond })?;
        answered(response).await
    }

    async fn follow(
        self,
        _: Context,
        report: ReplicaReport,
        known: Txid,
    ) -> Result<PrimaryReport, ServerError> {
        self.admit(None)?;
        let shared = self.node.replicas.has_been_at(report.position, &*self.node.role_guard);
        self.node.replicas.hear(report);
        let mut positions = self.node.role_guard.positions();
        let wanted = self.node.replicas.wanted.notified();
        let beyond = |position: &Option<Position>| position.is_some_and(|position| position.txid > known);
        tokio::select! {
            _ = positions.wait_for(beyond) => {}
            // Who is waited for comes back with every step.
            () = std::future::ready(()), if !shared || self.node.replicas.are_awaited() => {}
            () = wanted => {}
            () = tokio::time::sleep(NO_NEWS) => {}
        }
        self.admit(None)?;
        let position = *positions.borrow();
        let position = position
            .ok_or_else(|| ServerError::Unconfirmed { reason: "the position is not known yet".into() })?;
        let term = self.node.role_guard.changes().borrow().term_start;
        let term_start = term.or(*self.node.replicas.term_start()).unwrap_or(position);
        Ok(PrimaryReport { position, term_start, awaited: self.node.replicas.are_awaited(), shared })
    }

    async fn replicated(
        self,
        context: Context,
        position: Position,
        replicas: usize,
    ) -> Result<(), ServerError> {
        self.admit(None)?;
        self.node.replicas.reach(position, replicas, context.deadline).await
    }

    async fn handoff(self, context: Context, to: Option<String>) -> Result<String, ServerError> {
        self.admit(None)?;
        self.node.handoff(to, context.deadline).await
    }

    async fn promote_here(self, context: Context, position: Position) -> Result<(), ServerError> {
        let deadline = tokio::time::Instant::from_std(context.deadline);
        // LiteFS must not be asked any more once the primary may have given up and goes on writing.
        let left = context.deadline.saturating_duration_since(Instant::now());
        let in_time = deadline - left / 2;
        let role_guard = &self.node.role_guard;
        let (mut positions, mut roles) = (role_guard.positions(), role_guard.changes());
        let here = positions.wait_for(|here| here.is_some_and(|here| here.txid >= position.txid));
        let here = tokio::time::timeout_at(in_time, here).await;
        let here = here.map_err(|_| handoff_failed("this node has not received every commit in time"))?;
        if here.is_ok_and(|here| *here != Some(position)) {
            return Err(handoff_failed("this node has another history"));
        }
        role_guard.promote().await.map_err(handoff_failed)?;
        let promoted = async { while role_guard.writable().is_none() && roles.changed().await.is_ok() {} };
        let promoted = tokio::time::timeout_at(deadline, promoted).await;
        promoted.map_err(|_| handoff_failed("LiteFS has not made this node the primary in time"))
    }

    async fn position(self, _: Context) -> Result<Position, ServerError> {
        self.admit(None)?;
        self.node.role_guard.position().map_err(|reason| ServerError::Unconfirmed { reason })
    }
}
