//! The role of this node, as the server sees it.

use std::time::Duration;

use futures::future::BoxFuture;
use litefs_core::{
    Position, Presence, Role, RoleKind, RoleStamp, RoleState, Tracker, UnconfirmedCommit,
};
use tokio::sync::watch;

use crate::wire::PrimaryHint;

/// Tells the server this node's role, and LiteFS's position for the database.
pub trait RoleGuard: Send + Sync + 'static {
    /// The current role, if this node may write.
    fn writable(&self) -> Option<RoleStamp>;
    /// Whether nothing has changed since `stamp`.
    fn holds(&self, stamp: RoleStamp) -> bool;
    /// The database's position, read from LiteFS now. Blocks for some microseconds.
    ///
    /// # Errors
    /// Why it cannot be read; then no commit is confirmed.
    fn position(&self) -> Result<Position, String>;
    /// The commit of this process that could not be confirmed last. Other connections of the
    /// process may have made it.
    fn unconfirmed_commit(&self) -> &UnconfirmedCommit;
    /// The primary, if it is another node and known.
    fn hint(&self) -> Option<PrimaryHint>;
    /// Wakes at each change of the role.
    fn changes(&self) -> watch::Receiver<RoleState>;
    /// Watches the position as it was last reported. Never blocks.
    fn positions(&self) -> watch::Receiver<Option<Position>>;
    /// Asks LiteFS to make this node the primary. Returns before the role has changed.
    ///
    /// # Errors
    /// Why LiteFS refuses.
    fn promote(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Checks the mount and asks LiteFS for the role. Afterwards [`holds`](Self::holds) and
    /// [`is_mounted`](Self::is_mounted) return the result.
    fn confirm(&self) -> BoxFuture<'_, ()>;
    /// Whether LiteFS serves the mount, as far as that is known. Default: `true`.
    fn is_mounted(&self) -> bool {
        true
    }
    /// Waits until the commits on this node's own file that came before the writer's lock are
    /// confirmed, at most for `limit`. Blocks. Default: there are none.
    fn wait_for_commits(&self, _: Duration) {}
    /// This node's LiteFS host name, if known. Default: `None`.
    fn node(&self) -> Option<String> {
        None
    }
}

impl RoleGuard for Tracker {
    fn writable(&self) -> Option<RoleStamp> {
        let stamp = self.stamp();
        matches!(stamp.kind(), RoleKind::Primary).then_some(stamp)
    }

    fn holds(&self, stamp: RoleStamp) -> bool {
        self.stamp() == stamp
    }

    fn position(&self) -> Result<Position, String> {
        self.peek_position().map_err(|error| error.to_string())
    }

    fn unconfirmed_commit(&self) -> &UnconfirmedCommit {
        Tracker::unconfirmed_commit(self)
    }

    fn hint(&self) -> Option<PrimaryHint> {
        match self.role() {
            Role::Replica { primary } => {
                Some(PrimaryHint { node: primary.to_string(), address: self.rpc_address(&primary) })
            }
            _ => None,
        }
    }

    fn changes(&self) -> watch::Receiver<RoleState> {
        self.subscribe()
    }

    fn positions(&self) -> watch::Receiver<Option<Position>> {
        Tracker::positions(self)
    }

    fn promote(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Tracker::promote(self).await.map_err(|error| error.to_string()) })
    }

    fn confirm(&self) -> BoxFuture<'_, ()> {
        Box::pin(Tracker::confirm(self))
    }

    fn is_mounted(&self) -> bool {
        self.presence() != Presence::Lost
    }

    fn wait_for_commits(&self, limit: Duration) {
        if !self.pending_commits().wait(limit) {
            tracing::warn!(?limit, "a commit on this node's own file is not confirmed yet");
        }
    }

    fn node(&self) -> Option<String> {
        self.own_name().map(|name| name.to_string())
    }
}
