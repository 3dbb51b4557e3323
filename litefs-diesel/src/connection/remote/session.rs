//! A transaction that is open on the primary: its begin, its statements, its end.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::client::{self, CallError, Fate, ForwardError, Forwarded};
use litefs_rpc::wire::{
    Begin, BeginMode, Command, Reply, RequestId, ServerError, SessionId, Settings,
};

use super::channel::Channel;
use super::span::ForwardSpan;
use super::{Remote, is_worth_another_try};
use crate::error::{called, forwarded, stopped};
use crate::failure::Failure;
use crate::node::Node;

/// A transaction that is open on the primary. It lives on one channel and ends with it.
#[derive(Debug)]
pub(in crate::connection) struct Session {
    channel: Channel,
    id: SessionId,
    /// The id of the outcome of its COMMIT.
    request: RequestId,
    /// The acknowledgement log's when the session was opened.
    generation: u64,
}

/// The result of the statement that was sent with BEGIN.
pub(in crate::connection) type First = Result<Reply, CallError>;

/// What BEGIN on the primary says.
pub(in crate::connection) struct Opening {
    pub(in crate::connection) mode: BeginMode,
    /// The position of the snapshot that the transaction has read.
    pub(in crate::connection) expected: Option<Position>,
    pub(in crate::connection) savepoints: Vec<String>,
    pub(in crate::connection) first: Option<Command>,
}

/// Why a statement in a session failed.
#[derive(Debug)]
pub(in crate::connection) enum Step {
    /// Only the statement failed; the transaction is still open.
    Failed(CallError),
    /// The transaction is gone.
    Lost {
        reason: String,
        /// It was lost with its primary, and not to a limit of time.
        with_primary: bool,
    },
}

impl Session {
    /// The id of the outcome of its COMMIT.
    pub(super) fn request(&self) -> RequestId {
        self.request
    }

    /// The acknowledgement log's when the session was opened.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Runs work in the session. The error says whether the session is still open.
    pub(in crate::connection) fn step(
        &mut self,
        node: &Node,
        work: Command,
    ) -> Result<Reply, Step> {
        node.options.limits.check(&work).map_err(|refusal| Step::Failed(refusal.into()))?;
        let span = ForwardSpan::start(node, "transaction");
        let deadline = Instant::now() + node.options.forward_timeout;
        let id = self.id;
        let answer = self
            .channel
            .wait(deadline, |connection| async move { connection.step(id, work, deadline).await });
        let result = answer.map_err(|error| {
            let reason = error.to_string();
            match &error {
                CallError::Refused(refusal @ ServerError::SessionLost { .. }) => {
                    Step::Lost { reason, with_primary: refusal.is_lost_with_primary() }
                }
                error if error.fate() == Fate::Unknown => Step::Lost { reason, with_primary: true },
                _ => Step::Failed(error),
            }
        });
        span.end(&result.as_ref().map_err(|error| match error {
            Step::Lost { reason, .. } => Failure::TransactionLost.error(reason),
            Step::Failed(error) => Error::QueryBuilderError(error.to_string().into()),
        }));
        result
    }

    /// Sends COMMIT or ROLLBACK.
    pub(super) fn finish(&mut self, node: &Node, commit: bool) -> Result<Reply, CallError> {
        let deadline = Instant::now() + node.options.forward_timeout;
        let id = self.id;
        self.channel.wait(deadline, |connection| async move {
            connection.finish(id, commit, deadline).await
        })
    }

    /// The transaction has ended: its channel is available to the next caller.
    pub(in crate::connection) fn release(self) {
        self.channel.release();
    }

    /// Tells the primary, without waiting, that the transaction is over. If the message does not
    /// arrive, the session's limits end it.
    pub(in crate::connection) fn abandon(self, node: &Node) {
        // An exclusive connection is closed when it is dropped, which tells the primary.
        if let Channel::Shared(connection) = self.channel {
            let deadline = Instant::now() + node.options.forward_timeout;
            node.io.spawn(async move {
                let _ = connection.finish(self.id, false, deadline).await;
            });
        }
    }
}

impl Remote {
    /// Opens a transaction on the primary. `None`: this node is the primary now, open it here.
    pub(in crate::connection) fn open_session(
        &mut self,
        node: &Arc<Node>,
        settings: Settings,
        opening: Opening,
    ) -> QueryResult<Option<(Session, Option<First>)>> {
        let Opening { mode, expected, savepoints, first } = opening;
        if let Some(work) = &first {
            node.options.limits.check(work).map_err(|refusal| called(refusal.into(), None))?;
        }
        let (id, delivery) = (RequestId::new(), self.delivery());
        let begin = Begin { id, delivery, settings, mode, expected, savepoints, first };
        let span = ForwardSpan::start(node, "begin");
        let result = self.send_begin(node, begin);
        span.end(&result);
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
        if let Some(mut channel) = self.channel(node) {
            let first = begin.clone();
            let answer = channel.wait(deadline, |connection| async move {
                connection.begin(first, deadline).await
            });
            match answer {
                Ok((id, reply)) => {
                    return Ok(Some((Session { channel, id, request, generation }, reply)));
                }
                // Nothing is applied before COMMIT: if the answer is lost, another transaction is
                // opened.
                Err(error) if error.fate() == Fate::Unknown || is_worth_another_try(&error) => {}
                Err(error) => return Err(called(error, None)),
            }
        }
        let forwarder = Arc::clone(&node.forwarder);
        let sent = node.io.wait(async move {
            let open = |connection: Arc<client::Connection>| {
                let begin = begin.clone();
                async move {
                    let (id, first) = connection.begin(begin, deadline).await?;
                    let channel = Channel::Shared(connection);
                    Ok((Session { channel, id, request, generation }, first))
                }
            };
            forwarder.ask_primary(deadline.into(), open).await
        });
        match sent.ok_or_else(stopped)?.map_err(|error| error.in_all(started.elapsed())) {
            Ok(Forwarded::There(opened)) => Ok(Some(opened)),
            Ok(Forwarded::Here | Forwarded::Unresolved) => Ok(None),
            Err(ForwardError::Call(error)) if error.fate() == Fate::Unknown => {
                Err(Failure::Unreachable.error(format!("no transaction was opened: {error}")))
            }
            Err(error) => Err(forwarded(error, None)),
        }
    }
}
