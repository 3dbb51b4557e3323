//! Helpers that the scenarios share: a check with a message, keys of rows, waiting for a role.

use std::fmt;

use crate::cluster::{SETTLE, wait};
use crate::node::Node;
use crate::problem::Problem;

/// Fails with `otherwise` unless `condition` holds.
pub(super) fn ensure(condition: bool, otherwise: impl fmt::Display) -> Result<(), Problem> {
    if condition { Ok(()) } else { Err(otherwise.to_string().into()) }
}

/// Keys for a scenario's rows, each used once per run.
pub(super) fn key(scenario: &str, number: usize) -> String {
    format!("{scenario}-{}-{number}", std::process::id())
}

/// Waits until a node is the primary.
pub(super) async fn wait_for_primary(node: &Node) -> Result<(), Problem> {
    let what = format!("{} to become the primary", node.name());
    let is_primary = async || Ok((node.status().await?.tracker.role == "primary").then_some(()));
    wait(SETTLE, &what, is_primary).await
}
