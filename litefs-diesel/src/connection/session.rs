//! A transaction that is open on the primary: begun, gone on with, ended.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::client::{self, CallError, Fate, ForwardError, Forwarded};
use litefs_rpc::wire::{Begin, BeginMode, Command, Delivery, Reply, RequestId, ServerError, SessionId};

use super::LiteFsConnection;
use super::forward::{Trip, is_worth_another_try, stopped};
use super::path::Path;
use crate::Failure;
use crate::error::{called, forwarded};
use crate::litefs::Shared;

/// A transaction that is open on the primary. It lives on one connection; when that is gone, so is the transaction.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) path: Path,
    pub(super) id: SessionId,
    /// Names what becomes of its COMMIT.
    pub(super) request: RequestId,
    /// The acknowledgement log's when it was opened.
    pub(super) generation: u64,
}

/// What became of the statement that rode along with BEGIN.
pub(super) type First = Result<Reply, CallError>;

/// What opening a transaction on the primary takes.
pub(super) struct Opening {
    pub(super) mode: BeginMode,
    /// What the transaction's local reads saw.
    pub(super) expected: Option<Position>,
    pub(super) savepoints: Vec<String>,
    pub(super) first: Option<Command>,
}

/// Why a statement in a session failed.
#[derive(Debug)]
pub(super) enum Step {
    /// The statement alone; the transaction is still open.
    Failed(Error),
    /// The transaction is gone.
    Lost(String),
}

impl LiteFsConnection {
    /// Opens a transaction on the primary. `None`: this node is the primary now, open it here.
    pub(super) fn open_session(
        &mut self,
        shared: &Arc<Shared>,
        opening: Opening,
    ) -> QueryResult<Option<(Session, Option<First>)>> {
        let Opening { mode, expected, savepoints, first } = opening;
        if let Some(work) = &first {
            shared.options.limits.check(work).map_err(|refusal| called(refusal.into(), None))?;
        }
        let id = RequestId::new();
        let settings = self.settings()?;
        let begin = Begin { id, delivery: self.delivery, settings, mode, expected, savepoints, first };
        let trip = Trip::start(shared, "begin");
        let result = self.send_begin(shared, begin);
        trip.end(&result);
        result
    }

    fn send_begin(
        &mut self,
        shared: &Arc<Shared>,
        begin: Begin,
    ) -> QueryResult<Option<(Session, Option<First>)>> {
        let (request, generation) = (begin.id, shared.ack_log.generation());
        let started = Instant::now();
        let deadline = started + shared.options.forward_timeout;
        if let Some(mut path) = self.path(shared) {
            let first = begin.clone();
            match path.wait(deadline, |link| async move { link.begin(first, deadline).await }) {
                Ok((id, reply)) => return Ok(Some((Session { path, id, request, generation }, reply))),
                // Nothing is applied before COMMIT: who does not hear of a transaction opens another.
                Err(error) if error.fate() == Fate::Unknown || is_worth_another_try(&error) => {}
                Err(error) => return Err(called(error, None)),
            }
        }
        let forwarder = Arc::clone(&shared.forwarder);
        let sent = shared.io.wait(async move {
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
    pub(super) fn step(
        &mut self,
        shared: &Arc<Shared>,
        session: &mut Session,
        work: Command,
    ) -> Result<Reply, Step> {
        shared.options.limits.check(&work).map_err(|refusal| Step::Failed(called(refusal.into(), None)))?;
        let trip = Trip::start(shared, "transaction");
        let deadline = Instant::now() + shared.options.forward_timeout;
        let id = session.id;
        let answer = session.path.wait(deadline, |link| async move { link.step(id, work, deadline).await });
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
    pub(super) fn finish(
        &mut self,
        shared: &Arc<Shared>,
        mut session: Session,
        commit: bool,
    ) -> Result<(), (Error, Option<Session>)> {
        let trip = Trip::start(shared, if commit { "commit" } else { "rollback" });
        let deadline = Instant::now() + shared.options.forward_timeout;
        let id = session.id;
        let result =
            session.path.wait(deadline, |link| async move { link.finish(id, commit, deadline).await });
        let open = matches!(result, Err(CallError::Refused(ServerError::Database(_))));
        let result = match result {
            Err(error) if commit && self.is_settled_by_asking(&error) => {
                self.settle_commit(shared, session.request, &error)
            }
            result => result.map_err(|error| called(error, Some(session.request))),
        };
        trip.end(&result);
        match result {
            Ok(reply) => {
                self.mark(shared, &reply);
                let id = (self.delivery == Delivery::ExactlyOnce).then_some(session.request);
                let wrote = commit && self.transaction.wrote_there;
                self.note_acknowledged(shared, reply.position.filter(|_| wrote), id, session.generation);
                session.path.release();
                let written = commit && self.transaction.may_have_written;
                let written = reply.position.filter(|_| written);
                self.await_replicas(shared, written).map_err(|error| (error, None))
            }
            Err(error) => Err((error, open.then_some(session))),
        }
    }
}
