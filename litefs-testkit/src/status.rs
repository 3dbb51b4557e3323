//! The status of a node, as tests ask for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::position::Position;
use crate::wire::Peer;

/// The status of a node; see [`Control::status`](crate::Control::status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Names and addresses of the node.
    pub peer: Peer,
    /// False once it was killed or has died.
    pub alive: bool,
    /// Whether it holds the lease.
    pub is_primary: bool,
    /// The primary that it follows, or tries to.
    pub primary: Option<String>,
    /// Whether that primary has accepted it.
    pub connected: bool,
    /// Whether incoming replication is held back.
    pub stalled: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Names of the nodes to which its links are cut.
    pub cut: BTreeSet<String>,
    /// Position of each database.
    pub positions: BTreeMap<String, Position>,
}
