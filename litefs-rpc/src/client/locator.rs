//! Locates the primary.

use futures::future::BoxFuture;
use litefs_core::{Role, Tracker};
use tokio::time::Instant;

use crate::wire::PrimaryHint;

/// Where writes go, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryLocation {
    /// This node is the primary.
    Here,
    /// Another node is the primary.
    Elsewhere(PrimaryHint),
    /// No primary is known.
    Nowhere,
}

/// Locates the primary. [`Tracker`] is the implementation in use; tests have small fakes.
pub trait PrimaryLocator: Send + Sync + 'static {
    /// Where writes go now.
    fn location(&self) -> PrimaryLocation;
    /// Returns once the location is no longer `seen`, or at the deadline.
    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()>;
    /// Checks the location again: the node that it names is unreachable or not the primary.
    fn recheck(&self) -> BoxFuture<'_, ()>;
}

impl PrimaryLocator for Tracker {
    fn location(&self) -> PrimaryLocation {
        match self.role() {
            Role::Primary | Role::Standalone => PrimaryLocation::Here,
            Role::Replica { primary } => PrimaryLocation::Elsewhere(PrimaryHint {
                node: primary.to_string(),
                address: self.rpc_address(&primary),
            }),
            Role::Unknown => PrimaryLocation::Nowhere,
        }
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut roles = self.subscribe();
            loop {
                // Registered before the check, so that no address learned in between is missed.
                let learned = self.address_learned();
                if self.location() != *seen {
                    return;
                }
                tokio::select! {
                    changed = roles.changed() => if changed.is_err() { return },
                    () = learned => {}
                    () = tokio::time::sleep_until(deadline) => return,
                }
            }
        })
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.confirm())
    }
}

impl<D: PrimaryLocator + ?Sized> PrimaryLocator for std::sync::Arc<D> {
    fn location(&self) -> PrimaryLocation {
        (**self).location()
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        (**self).changed(seen, deadline)
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        (**self).recheck()
    }
}
