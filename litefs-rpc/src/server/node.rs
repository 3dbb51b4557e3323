//! What all connections of a server share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::config::ServerConfig;
use super::job::{Job, Write};
use super::queue::Queue;
use super::replica_reads::ReplicaReads;
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use super::sessions::Sessions;
use crate::wire::{Reply, Request, ServerError};

/// How long a replica's long poll waits for a new position before it is answered anyway.
pub(super) const LONG_POLL: Duration = Duration::from_secs(1);

/// What all connections of a server share.
pub(super) struct Node {
    pub(super) config: Arc<ServerConfig>,
    pub(super) role_guard: Arc<dyn RoleGuard>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) queue: Arc<Queue>,
    pub(super) replica_reads: Option<Arc<ReplicaReads>>,
    pub(super) replicas: Arc<Replicas>,
}

impl Node {
    pub(super) async fn handoff(
        &self,
        to: Option<String>,
        deadline: Instant,
    ) -> Result<String, ServerError> {
        // A node that has just become the primary does not know its replicas yet.
        let left = deadline.saturating_duration_since(Instant::now());
        let known_by = Instant::now() + LONG_POLL.min(left / 2);
        self.replicas.wait_for_replica(to.as_deref(), known_by).await;
        let (respond, response) = oneshot::channel();
        self.queue.push(Job::Handoff { to, deadline, respond })?;
        answered(response).await
    }

    /// Runs a write of this process. Blocks, at most until `deadline`.
    pub(super) fn write(&self, request: Request, deadline: Instant) -> Result<Reply, ServerError> {
        self.config.limits.check(&request.work)?;
        let (respond, response) = oneshot::channel();
        self.queue.run_or_push(Job::Write(Write { request, deadline, respond }))?;
        match super::block::block_until(deadline, response) {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(ServerError::unconfirmed("the writer ended")),
            None => Err(ServerError::unconfirmed("the writer has not answered in time")),
        }
    }
}

impl Drop for Node {
    /// No connection is left that could send a request.
    fn drop(&mut self) {
        self.queue.end();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("database", &self.config.database).finish_non_exhaustive()
    }
}

/// Awaits the writer's answer. The writer answers each job that it takes, so a dropped channel
/// means that it panicked or has ended.
pub(super) async fn answered<T>(
    response: oneshot::Receiver<Result<T, ServerError>>,
) -> Result<T, ServerError> {
    response.await.unwrap_or_else(|_| Err(ServerError::unconfirmed("the writer ended")))
}
