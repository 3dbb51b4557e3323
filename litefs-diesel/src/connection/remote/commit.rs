//! The end of a transaction that is open on the primary.

use std::sync::Arc;

use diesel::result::{Error, QueryResult};
use litefs_rpc::client::CallError;
use litefs_rpc::wire::{Delivery, Outcome, Reply, RequestId, ServerError};

use super::super::LiteFsConnection;
use super::super::replication::wait_for_durability;
use super::session::Session;
use super::span::ForwardSpan;
use crate::error::called;
use crate::failure::Failure;
use crate::node::Node;

/// Why a session could not be ended.
pub(in crate::connection) struct EndError {
    pub(in crate::connection) error: Error,
    /// The transaction is still open.
    pub(in crate::connection) session: Option<Session>,
    /// It is certainly not committed, and was lost with its primary.
    pub(in crate::connection) lost_with_primary: bool,
}

impl From<Error> for EndError {
    fn from(error: Error) -> Self {
        Self { error, session: None, lost_with_primary: false }
    }
}

impl LiteFsConnection {
    /// Ends the open session.
    pub(in crate::connection) fn finish(
        &mut self,
        node: &Arc<Node>,
        mut session: Session,
        commit: bool,
    ) -> Result<(), EndError> {
        let span = ForwardSpan::start(node, if commit { "commit" } else { "rollback" });
        let result = session.finish(node, commit);
        let open = matches!(result, Err(CallError::Refused(ServerError::Database(_))));
        let mut lost_with_primary = matches!(
            &result, Err(CallError::Refused(refusal)) if refusal.is_lost_with_primary());
        let result = match result {
            Err(error) if commit && self.remote.can_resolve(&error) => {
                let resolved = self.resolve_commit(node, session.request(), &error);
                lost_with_primary = resolved.as_ref().is_err_and(is_lost);
                resolved
            }
            result => result.map_err(|error| called(error, Some(session.request()))),
        };
        span.end(&result);
        match result {
            Ok(reply) => {
                self.accept_end(node, session, commit, &reply)?;
                Ok(())
            }
            Err(error) => {
                Err(EndError { error, session: open.then_some(session), lost_with_primary })
            }
        }
    }

    /// Later reads must see what the transaction has left.
    fn accept_end(
        &mut self,
        node: &Arc<Node>,
        session: Session,
        commit: bool,
        reply: &Reply,
    ) -> QueryResult<()> {
        if let Some(position) = reply.position {
            self.visibility.note_write(node, position);
            if commit && self.transaction.wrote_remotely() {
                let exactly_once = self.remote.delivery() == Delivery::ExactlyOnce;
                let id = exactly_once.then_some(session.request());
                self.commits.acknowledge(node, position, id, session.generation());
            }
        }
        session.release();
        let written = commit && self.transaction.may_have_written();
        let written = reply.position.filter(|_| written);
        wait_for_durability(node, &mut self.visibility, written)
    }

    /// The answer to COMMIT was lost. The primary has the outcome, whichever node that is now.
    fn resolve_commit(
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

fn is_lost(error: &Error) -> bool {
    Failure::of(error) == Some(Failure::TransactionLost)
}
