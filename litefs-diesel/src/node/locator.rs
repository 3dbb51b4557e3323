//! Where the primary is: the role of the tracker, the address of the tracking table.

use std::sync::Arc;

use futures::future::BoxFuture;
use litefs_core::{Role, Tracker};
use litefs_rpc::client::{Forwarder, PrimaryLocation, PrimaryLocator};
use tokio::time::Instant;

use super::address_table::TrackingTable;

/// Sends requests to the primary.
pub(crate) type Forwarding = Forwarder<Arc<AddressLocator>>;

/// Finds the primary's name in the tracker and its address in the tracking table.
#[derive(Debug)]
pub(crate) struct AddressLocator {
    pub(crate) tracker: Tracker,
    pub(crate) table: Arc<TrackingTable>,
}

impl PrimaryLocator for AddressLocator {
    fn location(&self) -> PrimaryLocation {
        self.tracker.location()
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        self.tracker.changed(seen, deadline)
    }

    /// The address may be old: the row is read again before LiteFS is asked.
    fn recheck(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Role::Replica { primary } = self.tracker.role() {
                self.table.refresh(&self.tracker, &primary).await;
            }
            self.tracker.confirm().await;
        })
    }
}
