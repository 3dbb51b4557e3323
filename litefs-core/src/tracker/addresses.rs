//! Where nodes take forwarded writes.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::NodeName;
use crate::sync::lock;

/// What was learned, per node. One entry per node that ever was the primary, so it stays small.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: Mutex<HashMap<NodeName, String>>,
    learned: Notify,
}

impl Addresses {
    pub(crate) fn learn(&self, node: &NodeName, address: &str) {
        let before = lock(&self.known).insert(node.clone(), address.to_owned());
        if before.as_deref() != Some(address) {
            self.learned.notify_waiters();
        }
    }

    pub(crate) fn get(&self, node: &NodeName) -> Option<String> {
        lock(&self.known).get(node).cloned()
    }

    pub(crate) fn learned(&self) -> Notified<'_> {
        self.learned.notified()
    }
}
