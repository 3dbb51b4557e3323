//! Sending work to the primary and taking in what comes back.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::{Error, QueryResult};
use litefs_core::{Position, Role};
use litefs_rpc::client::{self, CallError, Forwarded};
use litefs_rpc::wire::{Command, Delivery, Output, Reply, Request, RequestId, ServerError};
use tracing::field::Empty;

use super::super::LiteFsConnection;
use super::super::local::is_writable;
use super::super::run::Writes;
use crate::Failure;
use crate::consistency::Mark;
use crate::error::{called, forwarded};
use crate::node::Node;
use crate::options::durability::Durability;
use crate::options::local_writes::LocalWrites;

/// Where a write was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By this process's own writer.
    Here,
    /// On another node.
    There,
}

/// One span per statement that leaves this node; it ends with the outcome, however that is.
pub(in crate::connection) struct Trip {
    span: tracing::Span,
    started: Instant,
}

impl Trip {
    pub(in crate::connection) fn start(node: &Node, access: &'static str) -> Self {
        let database = node.options.config.database_name();
        let span = tracing::info_span!(
            "litefs.forward",
            db = database,
            access,
            primary = Empty,
            outcome = Empty,
            reason = Empty,
            duration_us = Empty
        );
        if let Role::Replica { primary } = node.tracker.role() {
            span.record("primary", tracing::field::display(primary));
        }
        Self { span, started: Instant::now() }
    }

    pub(in crate::connection) fn end<T>(self, result: &QueryResult<T>) {
        if self.span.is_disabled() {
            return;
        }
        // Never zero, so that "was it measured?" has an answer.
        let micros = self.started.elapsed().as_micros().max(1);
        self.span.record("duration_us", u64::try_from(micros).unwrap_or(u64::MAX));
        match result {
            Ok(_) => self.span.record("outcome", "ok"),
            Err(error) => self
                .span
                .record("outcome", "error")
                .record("reason", tracing::field::display(error)),
        };
        // What was recorded is seen by subscribers that look at events only, too.
        self.span.in_scope(|| tracing::debug!("forwarded"));
    }
}

impl LiteFsConnection {
    /// Runs autocommit work on the primary. `None`: this node is the primary now, run it here.
    pub(in crate::connection) fn forward(
        &mut self,
        node: &Arc<Node>,
        writes: Writes,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        let settings = self.settings()?;
        let request =
            Request { id: RequestId::new(), delivery: self.delivery, again: false, settings, work };
        node.options.limits.check(&request.work).map_err(|refusal| called(refusal.into(), None))?;
        // What stays on this node is no trip.
        let access = if writes == Writes::No { "read" } else { "write" };
        let trip = (!self.has_the_writer(node)).then(|| Trip::start(node, access));
        let generation = node.ack_log.generation();
        let id = (request.delivery == Delivery::ExactlyOnce).then_some(request.id);
        let result = self.send(node, request);
        let result = result.and_then(|reply| match reply {
            Some((reply, at)) => self.taken(node, writes, reply, at, (id, generation)).map(Some),
            None => Ok(None),
        });
        if let Some(trip) = trip {
            trip.end(&result);
        }
        result
    }

    fn has_the_writer(&self, node: &Node) -> bool {
        node.options.local_writes == LocalWrites::Grouped && is_writable(node)
    }

    /// Later reads must see what a write has left, also one that failed in the middle.
    fn taken(
        &mut self,
        node: &Arc<Node>,
        writes: Writes,
        reply: Reply,
        at: Place,
        (id, generation): (Option<RequestId>, u64),
    ) -> QueryResult<Reply> {
        let changed = reply.position.filter(|_| reply.effects.total_changes > 0);
        if at == Place::There {
            self.mark(node, &reply);
        }
        self.note_acknowledged(node, changed, id, generation);
        // What has written nothing leaves nothing to be lost.
        let written = reply.position.filter(|_| writes.may_have_written(reply.effects));
        self.await_replicas(node, written)?;
        match reply.answer {
            Output::Failed(error) => Err(litefs_rpc::sqlite::to_diesel(error)),
            Output::NotKept => Err(Failure::RowsLost.error(
                "the write is applied, once; the rows it returned were lost with its first \
                 answer, and are too many to be kept for another",
            )),
            _ => Ok(reply),
        }
    }

    /// The first try, over what stands already. `None`: nothing does.
    fn try_at_once(
        &mut self,
        node: &Node,
        request: Request,
        deadline: Instant,
    ) -> Option<Result<(Reply, Place), CallError>> {
        if self.has_the_writer(node) {
            let written = node.server_handle()?.write(request, deadline);
            return Some(written.map(|reply| (reply, Place::Here)).map_err(CallError::Refused));
        }
        let mut path = self.path(node)?;
        let answer = path.wait(deadline, |link| async move { link.write(request, deadline).await });
        path.release();
        Some(answer.map(|reply| (reply, Place::There)))
    }

    fn send(&mut self, node: &Arc<Node>, request: Request) -> QueryResult<Option<(Reply, Place)>> {
        let id = request.id;
        let mut doubt = None;
        let started = Instant::now();
        let deadline = started + node.options.forward_timeout;
        match self.try_at_once(node, request.clone(), deadline) {
            Some(Ok(reply)) => return Ok(Some(reply)),
            Some(Err(error)) if self.is_settled_by_asking(&error) => doubt = Some(error),
            // Nobody else can take it.
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
            let (forwarder, again, doubted) =
                (Arc::clone(&node.forwarder), request.clone(), doubt.take());
            let sent =
                node.io.wait(async move { forwarder.write(again, doubted, deadline.into()).await });
            match sent.ok_or_else(stopped)? {
                Ok(Forwarded::There(reply)) => return Ok(Some((reply, Place::There))),
                Ok(Forwarded::Here) => return Ok(None),
                Ok(Forwarded::Unsettled) => match self.settled_here(node, id) {
                    Err(_) if Instant::now() < deadline && self.has_moved_on(node) => {
                        doubt = Some(CallError::Lost {
                            address: "a previous primary".into(),
                            reason: "the primary changed, more than once".into(),
                        });
                    }
                    settled => return Ok(settled?.map(|reply| (reply, Place::Here))),
                },
                Err(error) => return Err(forwarded(error.in_all(started.elapsed()), Some(id))),
            }
        }
    }

    /// The open connection to the primary of the moment. In the common case that is the one used
    /// last, and costs neither a lock nor an allocation.
    pub(in crate::connection) fn link(&mut self, node: &Node) -> Option<Arc<client::Connection>> {
        let stamp = node.tracker.stamp();
        if let Some((used, link)) = &self.link
            && *used == stamp
            && link.is_open()
        {
            return Some(Arc::clone(link));
        }
        let Role::Replica { primary } = node.tracker.role() else { return None };
        let link = node.forwarder.client().live(&node.tracker.rpc_address(&primary))?;
        self.link = Some((stamp, Arc::clone(&link)));
        Some(link)
    }

    /// Waits until those have the commit that must have it.
    pub(in crate::connection) fn await_replicas(
        &mut self,
        node: &Arc<Node>,
        position: Option<Position>,
    ) -> QueryResult<()> {
        let Some(position) = position else { return Ok(()) };
        match node.options.durability {
            Durability::Primary => Ok(()),
            Durability::Replicas(replicas) => replicas_have(node, position, replicas),
            Durability::Here => {
                let deadline = Instant::now() + node.options.forward_timeout;
                let marks = self.own_marks.clone();
                let is_here = is_writable(node) || self.is_visible(node, marks, deadline);
                if is_here { Ok(()) } else { Err(not_replicated("it is not here in time")) }
            }
        }
    }

    /// Remembers what later reads must see.
    pub(in crate::connection) fn mark(&mut self, node: &Node, reply: &Reply) {
        if let Some(position) = reply.position {
            self.mark_position(node, position);
        }
    }

    pub(in crate::connection) fn mark_position(&mut self, node: &Node, position: Position) {
        let primary = match node.tracker.role() {
            Role::Replica { primary } => Some(primary.to_string()),
            _ => None,
        };
        let mark = Mark { position, primary };
        self.own_marks.add(mark.clone());
        node.watermark.add(mark);
    }
}

/// Waits until as many replicas have a commit. Blocks.
pub(in crate::connection) fn replicas_have(
    node: &Node,
    position: Position,
    replicas: usize,
) -> QueryResult<()> {
    let deadline = Instant::now() + node.options.forward_timeout;
    let (forwarder, server) = (Arc::clone(&node.forwarder), node.server_handle());
    let asked = node.io.wait(async move {
        let ask = |link: Arc<client::Connection>| async move {
            link.replicated(position, replicas, deadline).await
        };
        match (forwarder.ask_primary(deadline.into(), ask).await, server) {
            (Ok(Forwarded::There(())), _) => Ok(()),
            (Ok(_), Some(server)) => {
                let reached = server.replicated(position, replicas, deadline).await;
                reached.map_err(|refusal| refusal.to_string())
            }
            (Ok(_), None) => Err("this process does not serve, and only who does knows".to_owned()),
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

/// The forwarder knows how to go on from these: nothing was applied, and it may help to look again.
pub(in crate::connection) fn is_worth_another_try(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Unreachable { .. }
            | CallError::Refused(
                ServerError::NotPrimary { .. }
                    | ServerError::Overloaded { .. }
                    | ServerError::ShuttingDown
            )
    )
}

pub(in crate::connection) fn stopped() -> Error {
    Failure::Unreachable.error("the handle's I/O thread has ended")
}
