//! Serves the requests of one connection.

use std::sync::Arc;
use std::time::Instant;

use litefs_core::{Position, Txid};
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::job::{Job, Step, Write};
use super::node::{LONG_POLL, Node, answered};
use super::sessions::{ConnectionId, Ended};
use crate::service::Forward;
use crate::wire::{
    Begin, Command, PrimaryReport, ReplicaReport, Reply, Request, RequestId, ResolvedOutcome,
    ServerError, SessionId,
};

/// Serves the requests of one connection: checks each, queues it and awaits the writer's answer.
#[derive(Clone)]
pub(super) struct Handler {
    connection: ConnectionId,
    node: Arc<Node>,
}

impl Handler {
    pub(super) fn new(connection: ConnectionId, node: Arc<Node>) -> Self {
        Self { connection, node }
    }

    /// Refuses a request that the writer need not see.
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
        response.await.unwrap_or_else(|_| {
            Err(ServerError::SessionLost { reason: self.node.sessions.reason(session) })
        })
    }
}

impl Forward for Handler {
    async fn write(self, context: Context, request: Request) -> Result<Reply, ServerError> {
        self.admit(Some(&request.work))?;
        let request = Arc::new(request);
        if let Some(reads) =
            self.node.replica_reads.as_ref().filter(|reads| reads.accepts(&request.work))
            && let Some(reply) = reads.read(&request, context.deadline).await?
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

    async fn step(
        self,
        _: Context,
        session: SessionId,
        work: Command,
    ) -> Result<Reply, ServerError> {
        self.node.config.limits.check(&work)?;
        self.in_session(session, |respond| Step::Run { work, respond }).await
    }

    async fn finish(
        self,
        _: Context,
        session: SessionId,
        commit: bool,
    ) -> Result<Reply, ServerError> {
        self.in_session(session, |respond| Step::Finish { commit, respond }).await
    }

    async fn outcome(
        self,
        context: Context,
        id: RequestId,
    ) -> Result<ResolvedOutcome, ServerError> {
        self.admit(None)?;
        let (respond, response) = oneshot::channel();
        self.node.queue.push(Job::ResolveOutcome { id, deadline: context.deadline, respond })?;
        answered(response).await
    }

    async fn follow(
        self,
        _: Context,
        report: ReplicaReport,
        known: Txid,
    ) -> Result<PrimaryReport, ServerError> {
        self.admit(None)?;
        let shared = self.node.replicas.shares_history(report.position, &*self.node.role_guard);
        self.node.replicas.update(report);
        let mut positions = self.node.role_guard.positions();
        let waiter_arrived = self.node.replicas.waiter_arrived.notified();
        let beyond =
            |position: &Option<Position>| position.is_some_and(|position| position.txid > known);
        tokio::select! {
            _ = positions.wait_for(beyond) => {}
            // While a caller waits for replicas, each replica reports every step.
            () = std::future::ready(()), if !shared || self.node.replicas.has_waiters() => {}
            () = waiter_arrived => {}
            () = tokio::time::sleep(LONG_POLL) => {}
        }
        self.admit(None)?;
        let position = *positions.borrow();
        let position =
            position.ok_or_else(|| ServerError::unconfirmed("the position is not known yet"))?;
        let term = self.node.role_guard.changes().borrow().term_start;
        let term_start = term.or(*self.node.replicas.term_start()).unwrap_or(position);
        Ok(PrimaryReport {
            position,
            term_start,
            awaited: self.node.replicas.has_waiters(),
            shared,
        })
    }

    async fn replicated(
        self,
        context: Context,
        position: Position,
        replicas: usize,
    ) -> Result<(), ServerError> {
        self.admit(None)?;
        self.node.replicas.wait_for_position(position, replicas, context.deadline).await
    }

    async fn handoff(self, context: Context, to: Option<String>) -> Result<String, ServerError> {
        self.admit(None)?;
        self.node.handoff(to, context.deadline).await
    }

    async fn promote_here(self, context: Context, position: Position) -> Result<(), ServerError> {
        let deadline = tokio::time::Instant::from_std(context.deadline);
        // Do not promote later than this: the primary may have given up and resumed writing.
        let left = context.deadline.saturating_duration_since(Instant::now());
        let in_time = deadline - left / 2;
        let role_guard = &self.node.role_guard;
        let (mut positions, mut roles) = (role_guard.positions(), role_guard.changes());
        let here = positions.wait_for(|here| here.is_some_and(|here| here.txid >= position.txid));
        let here = tokio::time::timeout_at(in_time, here).await;
        let here = here.map_err(|_| {
            ServerError::handoff_failed("this node has not received every commit in time")
        })?;
        if here.is_ok_and(|here| *here != Some(position)) {
            return Err(ServerError::handoff_failed("this node has another history"));
        }
        role_guard.promote().await.map_err(ServerError::handoff_failed)?;
        let promoted =
            async { while role_guard.writable().is_none() && roles.changed().await.is_ok() {} };
        let promoted = tokio::time::timeout_at(deadline, promoted).await;
        promoted.map_err(|_| {
            ServerError::handoff_failed("LiteFS has not made this node the primary in time")
        })
    }

    async fn position(self, _: Context) -> Result<Position, ServerError> {
        self.admit(None)?;
        self.node.role_guard.position().map_err(ServerError::unconfirmed)
    }
}
