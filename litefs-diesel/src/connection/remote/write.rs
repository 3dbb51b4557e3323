//! Autocommit work on the primary: the request, its tries, and what its reply leaves behind.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::QueryResult;
use litefs_rpc::client::{CallError, Forwarded};
use litefs_rpc::wire::{Command, Delivery, Output, Reply, Request, RequestId, ServerError};

use super::super::LiteFsConnection;
use super::super::decide::may_write::MayWrite;
use super::super::local::is_writable;
use super::super::replication::wait_for_durability;
use super::is_worth_another_try;
use super::outcome::is_demoted;
use super::span::ForwardSpan;
use crate::error::{called, forwarded, stopped};
use crate::failure::Failure;
use crate::node::Node;
use crate::options::local_writes::LocalWrites;

/// What has answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnsweredBy {
    /// This process: its writer, or its own file.
    ThisProcess,
    /// Another node.
    OtherNode,
}

impl LiteFsConnection {
    /// Runs autocommit work on the primary. `None`: this node is the primary now, run it here.
    pub(in crate::connection) fn forward(
        &mut self,
        node: &Arc<Node>,
        may_write: MayWrite,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        let settings = self.session.settings(&mut self.local)?;
        let delivery = self.remote.delivery();
        let request = Request { id: RequestId::new(), delivery, again: false, settings, work };
        node.options.limits.check(&request.work).map_err(|refusal| called(refusal.into(), None))?;
        // What this process answers itself has no span.
        let access = if may_write == MayWrite::No { "read" } else { "write" };
        let span = (!has_the_writer(node)).then(|| ForwardSpan::start(node, access));
        let generation = node.ack_log.generation();
        let id = (request.delivery == Delivery::ExactlyOnce).then_some(request.id);
        let result = self.send(node, request);
        let result = result.and_then(|reply| match reply {
            Some((reply, by)) => {
                self.accept_reply(node, may_write, reply, by, (id, generation)).map(Some)
            }
            None => Ok(None),
        });
        if let Some(span) = span {
            span.end(&result);
        }
        result
    }

    /// Later reads must see what a write has left, also one that failed after a part of its
    /// changes.
    fn accept_reply(
        &mut self,
        node: &Arc<Node>,
        may_write: MayWrite,
        reply: Reply,
        by: AnsweredBy,
        (id, generation): (Option<RequestId>, u64),
    ) -> QueryResult<Reply> {
        if by == AnsweredBy::OtherNode
            && let Some(position) = reply.position
        {
            self.visibility.note_write(node, position);
        }
        if let Some(position) = reply.position
            && reply.effects.total_changes > 0
        {
            self.commits.acknowledge(node, position, id, generation);
        }
        // What has written nothing cannot be lost.
        let written = reply.position.filter(|_| may_write.may_have_written(reply.effects));
        wait_for_durability(node, &mut self.visibility, written)?;
        match reply.answer {
            Output::Failed(error) => Err(litefs_rpc::sqlite::to_diesel(error)),
            Output::NotKept => Err(Failure::RowsLost.error(
                "the write is applied, once; what it returned was lost with its first answer, and \
                 is too large to be kept for another",
            )),
            _ => Ok(reply),
        }
    }

    fn send(
        &mut self,
        node: &Arc<Node>,
        request: Request,
    ) -> QueryResult<Option<(Reply, AnsweredBy)>> {
        let id = request.id;
        let mut ambiguous = None;
        let started = Instant::now();
        let deadline = started + node.options.forward_timeout;
        match self.send_at_once(node, request.clone(), deadline) {
            Some(Ok(reply)) => return Ok(Some(reply)),
            Some(Err(error)) if self.remote.can_resolve(&error) => ambiguous = Some(error),
            // No other node can run it.
            Some(Err(CallError::Refused(
                refusal @ (ServerError::Overloaded { .. } | ServerError::ShuttingDown),
            ))) if is_writable(node) => {
                return Err(called(refusal.into(), None));
            }
            Some(Err(error)) if !is_worth_another_try(&error) => {
                return Err(called(error, Some(id)));
            }
            Some(Err(_)) | None => {}
        }
        loop {
            let (forwarder, again, before) =
                (Arc::clone(&node.forwarder), request.clone(), ambiguous.take());
            let sent =
                node.io.wait(async move { forwarder.write(again, before, deadline.into()).await });
            match sent.ok_or_else(stopped)? {
                Ok(Forwarded::There(reply)) => return Ok(Some((reply, AnsweredBy::OtherNode))),
                Ok(Forwarded::Here) => return Ok(None),
                Ok(Forwarded::Unresolved) => match self.resolve_reply(node, id) {
                    Err(_) if Instant::now() < deadline && is_demoted(node) => {
                        ambiguous = Some(CallError::Lost {
                            address: "a previous primary".into(),
                            reason: "the primary changed, more than once".into(),
                        });
                    }
                    resolved => {
                        let reply = resolved?;
                        return Ok(reply.map(|reply| (reply, AnsweredBy::ThisProcess)));
                    }
                },
                Err(error) => return Err(forwarded(error.in_all(started.elapsed()), Some(id))),
            }
        }
    }

    /// The first try: to this process's own writer, or over a connection that is open. `None`:
    /// there is neither.
    fn send_at_once(
        &mut self,
        node: &Node,
        request: Request,
        deadline: Instant,
    ) -> Option<Result<(Reply, AnsweredBy), CallError>> {
        if has_the_writer(node) {
            let written = node.server_handle()?.write(request, deadline);
            let written = written.map(|reply| (reply, AnsweredBy::ThisProcess));
            return Some(written.map_err(CallError::Refused));
        }
        let mut channel = self.remote.channel(node)?;
        let answer = channel
            .wait(deadline, |connection| async move { connection.write(request, deadline).await });
        channel.release();
        Some(answer.map(|reply| (reply, AnsweredBy::OtherNode)))
    }
}

fn has_the_writer(node: &Node) -> bool {
    node.options.local_writes == LocalWrites::Grouped && is_writable(node)
}
