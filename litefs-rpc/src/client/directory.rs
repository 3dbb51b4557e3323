use futures::future::BoxFuture;
use litefs_core::{Role, Tracker};
use tokio::time::Instant;

use crate::wire::PrimaryHint;

/// Where writes go, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This node writes itself.
    Here,
    /// Another node is the primary.
    Elsewhere(PrimaryHint),
    /// No primary is known.
    Nowhere,
}

/// Knows the primary. [`Tracker`] is the one in use; tests have small fakes.
pub trait Directory: Send + Sync + 'static {
    /// Where writes go now.
    fn standing(&self) -> Standing;
    /// Returns once the standing is no longer `seen`, or at the deadline.
    fn changed<'a>(&'a self, seen: &'a Standing, deadline: Instant) -> BoxFuture<'a, ()>;
    /// Hears that the node it names is not reachable or not the primary, and looks again.
    fn suspect(&self) -> BoxFuture<'_, ()>;
}

impl Directory for Tracker {
    fn standing(&self) -> Standing {
        match self.role() {
            Role::Primary | Role::Standalone => Standing::Here,
            Role::Replica { primary } => Standing::Elsewhere(PrimaryHint {
                node: primary.to_string(),
                address: self.rpc_address(&primary),
            }),
            Role::Unknown => Standing::Nowhere,
        }
    }

    fn changed<'a>(&'a self, seen: &'a Standing, deadline: Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut roles = self.subscribe();
            loop {
                // Registered before the look, so that no address learned in between is missed.
                let learned = self.address_learned();
                if self.standing() != *seen {
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

    fn suspect(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.confirm())
    }
}

impl<D: Directory + ?Sized> Directory for std::sync::Arc<D> {
    fn standing(&self) -> Standing {
        (**self).standing()
    }

    fn changed<'a>(&'a self, seen: &'a Standing, deadline: Instant) -> BoxFuture<'a, ()> {
        (**self).changed(seen, deadline)
    }

    fn suspect(&self) -> BoxFuture<'_, ()> {
        (**self).suspect()
    }
}
