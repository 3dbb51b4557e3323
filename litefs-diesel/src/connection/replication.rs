//! The wait until the nodes that must have a commit have it.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::QueryResult;
use litefs_core::Position;

use super::visibility::ReadVisibility;
use crate::error::{STOPPED, not_replicated};
use crate::node::Node;
use crate::options::durability::Durability;

/// Waits until the nodes that must have the commit of a forwarded write have it. `position`: where
/// the write has left the database, if it may have changed it.
pub(super) fn wait_for_durability(
    node: &Arc<Node>,
    visibility: &mut ReadVisibility,
    position: Option<Position>,
) -> QueryResult<()> {
    let Some(position) = position else { return Ok(()) };
    match node.options.durability {
        Durability::Primary => Ok(()),
        Durability::Replicas(replicas) => wait_for_replicas(node, position, replicas),
        Durability::Here => {
            let deadline = Instant::now() + node.options.forward_timeout;
            if visibility.wait_for_own_writes(node, deadline) {
                Ok(())
            } else {
                Err(not_replicated("it is not here in time"))
            }
        }
    }
}

/// Waits until as many replicas have a commit. Blocks.
pub(super) fn wait_for_replicas(
    node: &Node,
    position: Position,
    replicas: usize,
) -> QueryResult<()> {
    let deadline = Instant::now() + node.options.forward_timeout;
    let primary = node.primary();
    let replicated =
        node.io.wait(async move { primary.replicated(position, replicas, deadline).await });
    match replicated {
        Some(replicated) => replicated.map_err(not_replicated),
        None => Err(not_replicated(STOPPED)),
    }
}
