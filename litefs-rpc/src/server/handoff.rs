//! Giving the primary's place to another node.
//!
//! LiteFS hands over in the middle of writes and then loses some: a commit that it takes after the last one it has shipped,
//! or that meets the loss of the lease. So the writer, which everything forwarded passes, takes SQLite's write lock, which
//! everything else passes; waits until the successor has every commit; has it promoted; and lets go only when this node
//! knows that it is not the primary any more. An open transaction keeps a demoted LiteFS node in limbo, so then at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use litefs_core::Position;

use super::ServerConfig;
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use crate::client::{Client, ClientConfig};
use crate::wire::{ReplicaReport, ServerError};

/// How long the news of a change of role may take to come here.
const NEWS: Duration = Duration::from_secs(2);

/// Knows who may come next, and how to reach them.
pub(super) struct Successors {
    client: Client,
    replicas: Arc<Replicas>,
    handoff_running: Arc<AtomicBool>,
}

/// Marks the time of a handoff; ends it when dropped.
pub(super) struct HandingOver(Arc<AtomicBool>);

impl Drop for HandingOver {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub(super) fn handoff_failed(reason: impl std::fmt::Display) -> ServerError {
    ServerError::HandoffFailed { reason: reason.to_string() }
}

impl Successors {
    pub(super) fn new(
        config: &ServerConfig,
        replicas: Arc<Replicas>,
        handoff_running: Arc<AtomicBool>,
    ) -> Self {
        let mut client = ClientConfig::new(&config.database);
        client.secret.clone_from(&config.secret);
        client.limits = config.limits.clone();
        Self { client: Client::new(client), replicas, handoff_running }
    }

    pub(super) fn begin(&self) -> HandingOver {
        self.handoff_running.store(true, Ordering::Release);
        HandingOver(Arc::clone(&self.handoff_running))
    }

    pub(super) fn choose(&self, to: Option<&str>) -> Result<(ReplicaReport, String), ServerError> {
        let chosen = self.replicas.successor(to);
        let chosen = chosen.and_then(|report| report.address.clone().map(|address| (report, address)));
        chosen.ok_or_else(|| match to {
            Some(name) => {
                handoff_failed(format!("no replica named {name:?} follows this node and takes requests"))
            }
            None => handoff_failed("no replica follows this node and takes requests"),
        })
    }

    /// Has the successor promoted. Nobody writes meanwhile.
    pub(super) async fn promote(
        &self,
        address: &str,
        position: Position,
        role_guard: &dyn RoleGuard,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        let link = self.client.connect(address).await.map_err(handoff_failed)?;
        let mut roles = role_guard.changes();
        let taken = link.promote_here(position, deadline).await;
        if taken.is_ok() {
            // It may have come to know before us.
            let gone = async { while role_guard.writable().is_some() && roles.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(NEWS, gone).await;
        }
        if role_guard.writable().is_some() {
            role_guard.confirm().await;
        }
        match (taken, role_guard.writable()) {
            // Whatever the successor says: this node has given its place away.
            (_, None) => Ok(()),
            (Err(error), Some(_)) => Err(handoff_failed(error)),
            (Ok(()), Some(_)) => Err(handoff_failed("the successor has not taken over")),
        }
    }
}
