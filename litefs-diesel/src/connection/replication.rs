//! The wait until the nodes that must have a commit have it.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::client::{self, Forwarded};

use super::visibility::ReadVisibility;
use crate::failure::Failure;
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
    let (forwarder, server) = (Arc::clone(&node.forwarder), node.server_handle());
    let asked = node.io.wait(async move {
        let ask = |connection: Arc<client::Connection>| async move {
            connection.replicated(position, replicas, deadline).await
        };
        match (forwarder.ask_primary(deadline.into(), ask).await, server) {
            (Ok(Forwarded::There(())), _) => Ok(()),
            (Ok(_), Some(server)) => {
                let reached = server.replicated(position, replicas, deadline).await;
                reached.map_err(|refusal| refusal.to_string())
            }
            (Ok(_), None) => Err(
                "this process does not serve, so it does not know the positions of the replicas"
                    .to_owned(),
            ),
            (Err(error), _) => Err(error.to_string()),
        }
    });
    asked
        .unwrap_or_else(|| Err("the handle's I/O thread has ended".to_owned()))
        .map_err(not_replicated)
}

fn not_replicated(why: impl std::fmt::Display) -> Error {
    Failure::NotReplicated.error(format!(
        "the write is applied on the primary, but not replicated as it should be: {why}"
    ))
}
