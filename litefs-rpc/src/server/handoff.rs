//! A handoff: another node becomes the primary, and no write is lost.
//!
//! LiteFS itself performs a handoff in the middle of writes and then loses some: a commit that it
//! records after the last one it has sent, or while it loses the lease. So the writer, which runs
//! every forwarded write, takes SQLite's write lock, which every other write needs. It waits until
//! the successor has every commit, promotes the successor, and releases the lock once this node
//! knows that it is not the primary any more. It must not hold the lock longer: an open transaction
//! stops replication on a demoted LiteFS node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use litefs_core::Position;

use super::config::ServerConfig;
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use crate::client::{Client, ClientConfig};
use crate::wire::{ReplicaReport, ServerError};

/// How long this node may take to learn that its role has changed.
const ROLE_CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Chooses the successor and promotes it.
#[derive(Debug)]
pub(super) struct Successors {
    client: Client,
    replicas: Arc<Replicas>,
    handoff_running: Arc<AtomicBool>,
}

/// A handoff in progress; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct HandoffInProgress(Arc<AtomicBool>);

impl Drop for HandoffInProgress {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
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

    pub(super) fn begin(&self) -> HandoffInProgress {
        self.handoff_running.store(true, Ordering::Release);
        HandoffInProgress(Arc::clone(&self.handoff_running))
    }

    pub(super) fn choose(&self, to: Option<&str>) -> Result<(ReplicaReport, String), ServerError> {
        let chosen = self.replicas.successor(to);
        let chosen =
            chosen.and_then(|report| report.address.clone().map(|address| (report, address)));
        chosen.ok_or_else(|| match to {
            Some(name) => ServerError::handoff_failed(format!(
                "no replica named {name:?} follows this node and takes requests"
            )),
            None => ServerError::handoff_failed("no replica follows this node and takes requests"),
        })
    }

    /// Promotes the successor. The caller holds the write lock.
    pub(super) async fn promote(
        &self,
        address: &str,
        position: Position,
        role_guard: &dyn RoleGuard,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        let connection = self.client.connect(address).await.map_err(ServerError::handoff_failed)?;
        let mut roles = role_guard.changes();
        let promoted = connection.promote_here(position, deadline).await;
        if promoted.is_ok() {
            // The successor may learn of its role before this node does.
            let demoted =
                async { while role_guard.writable().is_some() && roles.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(ROLE_CHANGE_TIMEOUT, demoted).await;
        }
        if role_guard.writable().is_some() {
            role_guard.confirm().await;
        }
        match (promoted, role_guard.writable()) {
            // This node is demoted, whatever the successor answered.
            (_, None) => Ok(()),
            (Err(error), Some(_)) => Err(ServerError::handoff_failed(error)),
            (Ok(()), Some(_)) => {
                Err(ServerError::handoff_failed("the successor has not become the primary"))
            }
        }
    }
}
