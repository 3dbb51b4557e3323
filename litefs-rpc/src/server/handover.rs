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
use super::fence::Fence;
use super::followers::Followers;
use crate::client::{Client, ClientConfig};
use crate::wire::{Follower, Refusal};

/// How long the news of a change of role may take to come here.
const NEWS: Duration = Duration::from_secs(2);

/// Knows who may come next, and how to reach them.
pub(super) struct Successors {
    client: Client,
    followers: Arc<Followers>,
    handing_over: Arc<AtomicBool>,
}

/// Marks the time of a handover; ends it when dropped.
pub(super) struct HandingOver(Arc<AtomicBool>);

impl Drop for HandingOver {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub(super) fn not_handed_over(reason: impl std::fmt::Display) -> Refusal {
    Refusal::NotHandedOver { reason: reason.to_string() }
}

impl Successors {
    pub(super) fn new(
        config: &ServerConfig,
        followers: Arc<Followers>,
        handing_over: Arc<AtomicBool>,
    ) -> Self {
        let mut client = ClientConfig::new(&config.database);
        client.secret.clone_from(&config.secret);
        client.limits = config.limits.clone();
        Self { client: Client::new(client), followers, handing_over }
    }

    pub(super) fn begin(&self) -> HandingOver {
        self.handing_over.store(true, Ordering::Release);
        HandingOver(Arc::clone(&self.handing_over))
    }

    pub(super) fn choose(&self, to: Option<&str>) -> Result<(Follower, String), Refusal> {
        let chosen = self.followers.successor(to);
        let chosen = chosen.and_then(|follower| follower.address.clone().map(|address| (follower, address)));
        chosen.ok_or_else(|| match to {
            Some(name) => {
                not_handed_over(format!("no replica named {name:?} follows this node and takes requests"))
            }
            None => not_handed_over("no replica follows this node and takes requests"),
        })
    }

    /// Has the successor promoted. Nobody writes meanwhile.
    pub(super) async fn promote(
        &self,
        address: &str,
        position: Position,
        fence: &dyn Fence,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let link = self.client.connect(address).await.map_err(not_handed_over)?;
        let mut roles = fence.changes();
        let taken = link.take_over(position, deadline).await;
        if taken.is_ok() {
            // It may have come to know before us.
            let gone = async { while fence.writable().is_some() && roles.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(NEWS, gone).await;
        }
        if fence.writable().is_some() {
            fence.confirm().await;
        }
        match (taken, fence.writable()) {
            // Whatever the successor says: this node has given its place away.
            (_, None) => Ok(()),
            (Err(error), Some(_)) => Err(not_handed_over(error)),
            (Ok(()), Some(_)) => Err(not_handed_over("the successor has not taken over")),
        }
    }
}
