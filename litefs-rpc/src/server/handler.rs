use std::sync::Arc;

use litefs_core::Position;
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::ServerConfig;
use super::fence::Fence;
use super::sessions::{ConnectionId, Ended, Sessions};
use super::writer::{Job, Queue, Step};
use crate::service::Forward;
use crate::wire::{Begin, Refusal, Reply, Request, RequestId, SessionId, Settled, Work};

/// Serves the requests of one connection: checks them, queues them, awaits the writer's answer.
#[derive(Clone)]
pub(super) struct Handler(Arc<Shared>);

struct Shared {
    connection: ConnectionId,
    config: Arc<ServerConfig>,
    fence: Arc<dyn Fence>,
    sessions: Arc<Sessions>,
    queue: Queue,
}

impl Handler {
    pub(super) fn new(
        connection: ConnectionId,
        config: Arc<ServerConfig>,
        fence: Arc<dyn Fence>,
        sessions: Arc<Sessions>,
        queue: Queue,
    ) -> Self {
        Self(Arc::new(Shared { connection, config, fence, sessions, queue }))
    }

    /// Refused before it is queued, where that can be told without the writer.
    fn admit(&self, work: Option<&Work>) -> Result<(), Refusal> {
        if self.0.fence.writable().is_none() {
            return Err(Refusal::NotPrimary { hint: self.0.fence.hint() });
        }
        work.map_or(Ok(()), |work| self.0.config.limits.check(work))
    }

    async fn in_session(
        &self,
        session: SessionId,
        step: impl FnOnce(oneshot::Sender<Result<Reply, Refusal>>) -> Step,
    ) -> Result<Reply, Refusal> {
        let (respond, response) = oneshot::channel();
        self.0.sessions.send(session, self.0.connection, step(respond))?;
        // The writer drops unanswered steps only with the session itself.
        response
            .await
            .unwrap_or_else(|_| Err(Refusal::SessionLost { reason: self.0.sessions.reason(session) }))
    }
}

/// The writer answers everything it takes, so a dropped answer means that it panicked or is gone.
async fn answered<T>(response: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
    response.await.unwrap_or_else(|_| Err(Refusal::Unproven { reason: "the writer ended".into() }))
}

impl Forward for Handler {
    async fn write(self, context: Context, request: Request) -> Result<Reply, Refusal> {
        self.admit(Some(&request.work))?;
        let (respond, response) = oneshot::channel();
        self.0.queue.push(Job::Write { request, deadline: context.deadline, respond })?;
        answered(response).await
    }

    async fn begin(
        self,
        context: Context,
        begin: Begin,
    ) -> Result<(SessionId, Option<Result<Reply, Refusal>>), Refusal> {
        self.admit(begin.first.as_ref())?;
        let opened = self.0.sessions.open(self.0.connection);
        let id = opened.id;
        let (respond, response) = oneshot::channel();
        let job = Job::Begin { begin, deadline: context.deadline, opened, respond };
        if let Err(refusal) = self.0.queue.push(job) {
            self.0.sessions.end(id, Ended::Finished);
            return Err(refusal);
        }
        answered(response).await
    }

    async fn step(self, _: Context, session: SessionId, work: Work) -> Result<Reply, Refusal> {
        self.0.config.limits.check(&work)?;
        self.in_session(session, |respond| Step::Run { work, respond }).await
    }

    async fn finish(self, _: Context, session: SessionId, commit: bool) -> Result<Reply, Refusal> {
        self.in_session(session, |respond| Step::Finish { commit, respond }).await
    }

    async fn outcome(self, context: Context, id: RequestId) -> Result<Settled, Refusal> {
        self.admit(None)?;
        let (respond, response) = oneshot::channel();
        self.0.queue.push(Job::Settle { id, deadline: context.deadline, respond })?;
        answered(response).await
    }

    async fn position(self, _: Context) -> Result<Position, Refusal> {
        self.admit(None)?;
        self.0.fence.position().map_err(|reason| Refusal::Unproven { reason })
    }
}
