//! What became of a write whose answer was lost.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::{Connection, InstrumentationEvent};
use diesel::result::QueryResult;
use litefs_core::Position;
use litefs_rpc::client::{self, CallError, Fate, Forwarded};
use litefs_rpc::sqlite::Opened;
use litefs_rpc::wire::{Delivery, Outcome, Reply, RequestId, ServerError};

use super::super::LiteFsConnection;
use super::super::local::is_writable;
use super::super::proof::LocalCommit;
use super::write::stopped;
use crate::Failure;
use crate::error::{called, forwarded};
use crate::node::Node;

impl LiteFsConnection {
    /// Whether this node, which was the primary a moment ago, is not any more.
    pub(in crate::connection) fn has_moved_on(&self, node: &Node) -> bool {
        let tracker = node.tracker.clone();
        node.io.wait(async move { tracker.confirm().await });
        !is_writable(node)
    }

    /// Whether the primary can tell what this error leaves open.
    pub(in crate::connection) fn is_settled_by_asking(&self, error: &CallError) -> bool {
        let interrupted = *error == CallError::Refused(ServerError::Interrupted);
        self.delivery == Delivery::ExactlyOnce && error.fate() == Fate::Unknown && !interrupted
    }

    /// This node is the primary now, so its own file tells. `None`: not applied, and nobody will
    /// apply it any more.
    pub(in crate::connection) fn settled_here(
        &mut self,
        node: &Arc<Node>,
        id: RequestId,
    ) -> QueryResult<Option<Reply>> {
        match self.settle_here(node, id)? {
            Outcome::Applied(answer, effects) => {
                let position = node.tracker.read_position().ok();
                Ok(Some(Reply { answer, position, effects }))
            }
            Outcome::NotApplied => Ok(None),
            Outcome::Interrupted => Err(called(ServerError::Interrupted.into(), Some(id))),
        }
    }

    /// Asks this node's own file, and proves what that wrote. Blocks.
    pub(crate) fn settle_here(&mut self, node: &Arc<Node>, id: RequestId) -> QueryResult<Outcome> {
        let unknown = |error: &dyn std::fmt::Display| {
            Failure::OutcomeUnknown
                .of_write(id, format!("what became of the write cannot be asked here: {error}"))
        };
        let opened = node.open(node.options.config.database_url());
        let Opened { mut connection, native } = opened.map_err(|error| unknown(&error))?;
        connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
        let guard = LocalCommit::begin(node, &native, false);
        let guard = guard.ok_or_else(|| unknown(&"this node is not the primary any more"))?;
        let outcome =
            litefs_rpc::sqlite::settle(&mut connection, id).map_err(|error| unknown(&error))?;
        self.confirm_by(&guard, node, Some(&native)).map_err(|error| unknown(&error))?;
        Ok(outcome)
    }

    /// Asks the primary, wherever it is, what became of a write. Also answers a position that has
    /// the outcome.
    pub(crate) fn outcome(
        &mut self,
        node: &Arc<Node>,
        id: RequestId,
    ) -> QueryResult<(Outcome, Option<Position>)> {
        let started = Instant::now();
        let deadline = started + node.options.forward_timeout;
        loop {
            let forwarder = Arc::clone(&node.forwarder);
            let asked = node.io.wait(async move {
                let ask =
                    |link: Arc<client::Connection>| async move { link.outcome(id, deadline).await };
                forwarder.ask_primary(deadline.into(), ask).await
            });
            match asked.ok_or_else(stopped)? {
                Ok(Forwarded::There(settled)) => {
                    self.mark_position(node, settled.position);
                    return Ok((settled.outcome, Some(settled.position)));
                }
                Ok(Forwarded::Here | Forwarded::Unsettled) => match self.settle_here(node, id) {
                    Err(_) if Instant::now() < deadline && self.has_moved_on(node) => {}
                    settled => {
                        return settled.map(|outcome| (outcome, node.tracker.read_position().ok()));
                    }
                },
                Err(error) => return Err(forwarded(error.in_all(started.elapsed()), None)),
            }
        }
    }

    /// The answer to COMMIT was lost: the primary, whoever that is by now, knows whether it was
    /// done.
    pub(in crate::connection) fn settle_commit(
        &mut self,
        node: &Arc<Node>,
        id: RequestId,
        error: &CallError,
    ) -> QueryResult<Reply> {
        match self.outcome(node, id).map_err(|_| called(error.clone(), Some(id)))? {
            (Outcome::Applied(answer, effects), position) => {
                Ok(Reply { answer, position, effects })
            }
            (Outcome::NotApplied | Outcome::Interrupted, _) => Err(Failure::TransactionLost
                .error(format!("the transaction was not committed: {error}"))),
        }
    }
}
