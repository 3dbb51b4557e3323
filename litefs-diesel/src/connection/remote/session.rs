//! A transaction that is open on the primary: begun, gone on with, ended.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::client::{self, CallError, Fate, ForwardError, Forwarded};
use litefs_rpc::wire::{
    Begin, BeginMode, Command, Delivery, Reply, RequestId, ServerError, SessionId,
};

use super::super::LiteFsConnection;
use super::channel::Path;
use super::write::{Trip, is_worth_another_try, stopped};
use crate::Failure;
use crate::error::{called, forwarded};
use crate::node::Node;

/// A transaction that is open on the primary. It lives on one connection; when that is gone, so is
/// the transaction.
#[derive(Debug)]
pub(in crate::connection) struct Session {
    pub(in crate::connection) path: Path,
    pub(in crate::connection) id: SessionId,
    /// Names what becomes of its COMMIT.
    pub(in crate::connection) request: RequestId,
    /// The acknowledgement log's when it was opened.
    pub(in crate::connection) generation: u64,
}

/// What became of the statement that rode along with BEGIN.
pub(in crate::connection) type First = Result<Reply, CallError>;

/// What opening a transaction on the primary takes.
pub(in crate::connection) struct Opening {
    pub(in crate::connection) mode: BeginMode,
    /// What the transaction's local reads saw.
    pub(in crate::connection) expected: Option<Position>,
    pub(in crate::connection) savepoints: Vec<String>,
    pub(in crate::connection) first: Option<Command>,
}

/// Why a statement in a session failed.
#[derive(Debug)]
pub(in crate::connection) enum Step {
    /// The statement alone; the transaction is still open.
    Failed(Error),
    /// The transaction is gone.
    Lost(String),
}

impl LiteFsConnection {
    /// Opens a transaction on the primary. `None`: this node is the primary now, open it here.
    pub(in crate::connection) fn open_session(
        &mut self,
        node: &Arc<Node>,
        opening: Opening,
    ) -> QueryResult<Option<(Session, Option<First>)>> {
        let Opening { mode, expected, savepoints, first } = opening;
        if let Some(work) = &first {
            node.options.limits.check(work).map_err(|refusal| called(refusal.into(), None))?;
        }
        let id = RequestId::new();
        let settings = self.settings()?;
        let begin =
            Begin { id, delivery: self.delivery, settings, mode, expected, savepoints, first };
        let trip = Trip::start(node, "begin");
        let result = self.send_begin(node, begin);
        trip.end(&result);
        result
    }

    fn send_begin(
        &mut self,
        node: &Arc<Node>,
        begin: Begin,
    ) -> QueryResult<Option<(Session, Option<First>)>> {
        let (request, generation) = (begin.id, node.ack_log.generation());
        let started = Instant::now();
        let deadline = started + node.options.forward_timeout;
        if let Some(mut path) = self.path(node) {
            let first = begin.clone();
            match path.wait(deadline, |link| async move { link.begin(first, deadline).await }) {
                Ok((id, reply)) => {
                    return Ok(Some((Session { path, id, request, generation }, reply)));
                }
                // Nothing is applied before COMMIT: who does not hear of a transaction opens
                // another.
                Err(error) if error.fate() == Fate::Unknown || is_worth_another_try(&error) => {}
                Err(error) => return Err(called(error, None)),
            }
        }
        let forwarder = Arc::clone(&node.forwarder);
        let sent = node.io.wait(async move {
            let open = |link: Arc<client::Connection>| {
                let begin = begin.clone();
                async move {
                    let (id, first) = link.begin(begin, deadline).await?;
                    Ok((Session { path: Path::Shared(link), id, request, generation }, first))
                }
            };
            forwarder.ask_primary(deadline.into(), open).await
        });
        match sent.ok_or_else(stopped)?.map_err(|error| error.in_all(started.elapsed())) {
            Ok(Forwarded::There(opened)) => Ok(Some(opened)),
            Ok(Forwarded::Here | Forwarded::Unsettled) => Ok(None),
            Err(ForwardError::Call(error)) if error.fate() == Fate::Unknown => {
                Err(Failure::Unreachable.error(format!("no transaction was opened: {error}")))
            }
            Err(error) => Err(forwarded(error, None)),
        }
    }

    /// Runs work in the open session. The error says whether the session has survived it.
    pub(in crate::connection) fn step(
        &mut self,
        node: &Arc<Node>,
        session: &mut Session,
        work: Command,
    ) -> Result<Reply, Step> {
        node.options
            .limits
            .check(&work)
            .map_err(|refusal| Step::Failed(called(refusal.into(), None)))?;
        let trip = Trip::start(node, "transaction");
        let deadline = Instant::now() + node.options.forward_timeout;
        let id = session.id;
        let answer =
            session.path.wait(deadline, |link| async move { link.step(id, work, deadline).await });
        let result = answer.map_err(|error| {
            let lost = matches!(error, CallError::Refused(ServerError::SessionLost { .. }))
                || error.fate() == Fate::Unknown;
            if lost { Step::Lost(error.to_string()) } else { Step::Failed(called(error, None)) }
        });
        trip.end(&result.as_ref().map_err(|error| match error {
            Step::Lost(reason) => Failure::TransactionLost.error(reason),
            Step::Failed(error) => Error::QueryBuilderError(error.to_string().into()),
        }));
        result
    }

    /// Ends the open session. `Err((error, Some(..)))`: the transaction is still open.
    pub(in crate::connection) fn finish(
        &mut self,
        node: &Arc<Node>,
        mut session: Session,
        commit: bool,
    ) -> Result<(), (Error, Option<Session>)> {
        let trip = Trip::start(node, if commit { "commit" } else { "rollback" });
        let deadline = Instant::now() + node.options.forward_timeout;
        let id = session.id;
        let result = session
            .path
            .wait(deadline, |link| async move { link.finish(id, commit, deadline).await });
        let open = matches!(result, Err(CallError::Refused(ServerError::Database(_))));
        let result = match result {
            Err(error) if commit && self.is_settled_by_asking(&error) => {
                self.settle_commit(node, session.request, &error)
            }
            result => result.map_err(|error| called(error, Some(session.request))),
        };
        trip.end(&result);
        match result {
            Ok(reply) => {
                self.mark(node, &reply);
                let id = (self.delivery == Delivery::ExactlyOnce).then_some(session.request);
                let wrote = commit && self.transaction.wrote_remotely();
                self.note_acknowledged(
                    node,
                    reply.position.filter(|_| wrote),
                    id,
                    session.generation,
                );
                session.path.release();
                let written = commit && self.transaction.may_have_written();
                let written = reply.position.filter(|_| written);
                self.await_replicas(node, written).map_err(|error| (error, None))
            }
            Err(error) => Err((error, open.then_some(session))),
        }
    }
}
