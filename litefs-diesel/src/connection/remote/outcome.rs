//! The outcome of a write whose answer was lost.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::{Connection, InstrumentationEvent};
use diesel::result::QueryResult;
use litefs_core::Position;
use litefs_rpc::sqlite::{Opened, resolve_outcome};
use litefs_rpc::wire::{Outcome, Reply, RequestId, ServerError};

use super::super::LiteFsConnection;
use super::super::commits::LocalCommit;
use super::super::local::is_writable;
use crate::error::{called, forwarded, stopped};
use crate::failure::Failure;
use crate::node::Node;

impl LiteFsConnection {
    /// This node is the primary now, so its own file has the outcome. `None`: the write is not
    /// applied, and no later request with its id will be.
    pub(super) fn resolve_reply(
        &mut self,
        node: &Arc<Node>,
        id: RequestId,
    ) -> QueryResult<Option<Reply>> {
        match self.resolve_outcome(node, id)? {
            Outcome::Applied(answer, effects) => {
                let position = node.tracker.read_position().ok();
                Ok(Some(Reply { answer, position, effects }))
            }
            Outcome::NotApplied => Ok(None),
            Outcome::Interrupted => Err(called(ServerError::Interrupted.into(), Some(id))),
        }
    }

    /// Looks for the outcome in this node's own file, stores the id if it is not there, and
    /// confirms that commit. Blocks.
    fn resolve_outcome(&mut self, node: &Arc<Node>, id: RequestId) -> QueryResult<Outcome> {
        let unknown = |error: &dyn std::fmt::Display| {
            Failure::OutcomeUnknown
                .of_write(id, format!("what became of the write cannot be asked here: {error}"))
        };
        let opened = node.open(node.options.config.database_url());
        let Opened { mut connection, native } = opened.map_err(|error| unknown(&error))?;
        connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
        let guard = LocalCommit::begin(node, &native, false);
        let guard = guard.ok_or_else(|| unknown(&"this node is not the primary any more"))?;
        let outcome = resolve_outcome(&mut connection, id).map_err(|error| unknown(&error))?;
        self.commits.confirm_on(&guard, node, &native).map_err(|error| unknown(&error))?;
        Ok(outcome)
    }

    /// Asks the primary for the outcome of a write. Also returns a position that has the outcome.
    pub(crate) fn outcome(
        &mut self,
        node: &Arc<Node>,
        id: RequestId,
    ) -> QueryResult<(Outcome, Option<Position>)> {
        let started = Instant::now();
        let deadline = started + node.options.forward_timeout;
        loop {
            let primary = node.primary();
            let asked = node.io.wait(async move { primary.outcome(id, deadline).await });
            match asked.ok_or_else(stopped)? {
                Ok(Some(stored)) => {
                    self.visibility.note_write(node, stored.position);
                    return Ok((stored.outcome, Some(stored.position)));
                }
                Ok(None) => match self.resolve_outcome(node, id) {
                    Err(_) if Instant::now() < deadline && is_demoted(node) => {}
                    resolved => {
                        let position = || node.tracker.read_position().ok();
                        return resolved.map(|outcome| (outcome, position()));
                    }
                },
                Err(error) => return Err(forwarded(error.in_all(started.elapsed()), None)),
            }
        }
    }
}

/// Whether this node, which was the primary before, is not any more. Blocks while LiteFS is asked.
pub(super) fn is_demoted(node: &Node) -> bool {
    let tracker = node.tracker.clone();
    node.io.wait(async move { tracker.confirm().await });
    !is_writable(node)
}
