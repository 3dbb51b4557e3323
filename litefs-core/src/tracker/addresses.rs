//! Where nodes take forwarded writes.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::NodeName;
use crate::sync::lock;

/// What was learned, per node. One entry per node that ever was the primary, so it stays small.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<NodeName, String>>);

impl Addresses {
    pub(crate) fn learn(&self, node: &NodeName, address: &str) {
        lock(&self.0).insert(node.clone(), address.to_owned());
    }

    pub(crate) fn get(&self, node: &NodeName) -> Option<String> {
        lock(&self.0).get(node).cloned()
    }
}
