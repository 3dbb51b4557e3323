//! What the connection's reads must see, and the wait until they can.

use std::sync::Arc;
use std::time::Instant;

use diesel::result::QueryResult;
use litefs_core::{Position, Role, Txid};

use super::errors::is_behind;
use super::local::is_writable;
use crate::consistency::{Consistency, Mark, Marks, WhenBehind};
use crate::error::forwarded;
use crate::node::{Node, Visibility, make_visible};
use crate::router::Route;

/// What the connection's reads must see.
#[derive(Debug)]
pub(super) struct ReadVisibility {
    consistency: Consistency,
    /// The positions of this connection's own writes.
    own_marks: Marks,
}

impl ReadVisibility {
    pub(super) fn new(consistency: Consistency) -> Self {
        Self { consistency, own_marks: Marks::default() }
    }

    pub(super) fn consistency(&self) -> Consistency {
        self.consistency
    }

    pub(super) fn set_consistency(&mut self, consistency: Consistency) {
        self.consistency = consistency;
    }

    /// Whether the local file, at `here`, is known without any wait to have what must be seen.
    #[inline]
    pub(super) fn is_met(&self, node: &Node, here: Txid) -> bool {
        // Two comparisons, where `match` is a jump table.
        if self.consistency == Consistency::ReadYourWrites {
            has_reached(node, here, node.watermark.highest())
        } else {
            self.consistency == Consistency::Eventual
        }
    }

    /// Later reads must see the database at `position`, where a write has left it.
    pub(super) fn note_write(&mut self, node: &Node, position: Position) {
        let mark = Mark { position, primary: primary_of(node) };
        self.own_marks.add(mark.clone());
        node.watermark.add(mark);
    }

    /// Makes sure that a local read sees what it must, before its snapshot is taken.
    /// `Route::Primary`: the local file does not have it in time, so the read goes to the primary.
    #[inline]
    pub(super) fn before_local_read(&mut self, node: &Arc<Node>) -> QueryResult<Route> {
        if !node.read_throttle.may_read(node.tracker.last_txid()) {
            throttle_read(node);
        }
        let highest = match self.consistency {
            Consistency::ReadYourWrites => node.watermark.highest(),
            Consistency::Session => self.own_marks.highest(),
            Consistency::Eventual => return Ok(Route::Local),
            Consistency::Strong => return self.catch_up(node, None),
        };
        if has_reached(node, node.tracker.last_txid(), highest) {
            return Ok(Route::Local);
        }
        let marks = match self.consistency {
            Consistency::Session => self.own_marks.clone(),
            _ => node.watermark.marks(),
        };
        self.catch_up(node, Some(marks))
    }

    /// Waits until the local file has all that the primary has now.
    pub(super) fn catch_up_with_primary(&mut self, node: &Arc<Node>) -> QueryResult<Route> {
        self.catch_up(node, None)
    }

    /// The slow half: waits for `marks`, or for the position of the primary.
    #[cold]
    fn catch_up(&mut self, node: &Arc<Node>, marks: Option<Marks>) -> QueryResult<Route> {
        if is_writable(node) {
            return Ok(Route::Local);
        }
        let deadline = Instant::now() + node.options.read_timeout;
        let marks = match marks {
            Some(marks) => marks,
            None => primary_position(node, deadline)?,
        };
        if self.wait_for(node, marks, deadline) { Ok(Route::Local) } else { behind(node) }
    }

    /// Waits until the local file has this connection's own writes. `false`: not in time.
    pub(super) fn wait_for_own_writes(&mut self, node: &Arc<Node>, deadline: Instant) -> bool {
        is_writable(node) || self.wait_for(node, self.own_marks.clone(), deadline)
    }

    /// Waits until the local file has all of `marks`.
    fn wait_for(&mut self, node: &Arc<Node>, marks: Marks, deadline: Instant) -> bool {
        if !wait_for_history(node, &marks, deadline) {
            return false;
        }
        // The file may have come far enough although no event has reported it yet.
        if node.tracker.read_position().is_ok_and(|position| position.txid >= marks.highest()) {
            return true;
        }
        let (tracker, primary) = (node.tracker.clone(), node.primary());
        let waiting = make_visible(tracker, primary, marks.clone(), deadline);
        let Some(Visibility::Here(rebased)) = node.io.wait(waiting) else { return false };
        node.watermark.rebase(&marks, &rebased);
        if self.own_marks == marks {
            self.own_marks = rebased;
        }
        true
    }
}

/// Whether the local file, at `here`, is known to have come as far as `mark`.
#[inline]
fn has_reached(node: &Node, here: Txid, mark: Txid) -> bool {
    mark <= here && (mark == Txid::new(0) || node.read_throttle.same_history())
}

/// Pauses a read until LiteFS has applied what this node has received, at most for `read_pause`.
#[cold]
fn throttle_read(node: &Node) {
    let pause = node.options.read_pause;
    let Some(target) = node.read_throttle.target(node.started).filter(|_| !pause.is_zero()) else {
        return;
    };
    let (tracker, deadline) = (node.tracker.clone(), Instant::now() + pause);
    let applied =
        node.io.wait(async move { tracker.wait_for_txid(target, deadline.into()).await.is_ok() });
    node.read_throttle.note(applied == Some(true), node.started);
}

/// Waits until the local file is in the history that the marks are of: before that its TXIDs cannot
/// be compared with theirs.
fn wait_for_history(node: &Node, marks: &Marks, deadline: Instant) -> bool {
    if marks.highest() == Txid::new(0) || node.read_throttle.same_history() || is_writable(node) {
        return true;
    }
    let mut history_changes = node.read_throttle.history_changes();
    let share = async move {
        let same = history_changes.wait_for(|same| *same);
        tokio::time::timeout_at(deadline.into(), same).await.is_ok_and(|same| same.is_ok())
    };
    node.io.wait(share) == Some(true)
}

/// Where the primary is now. No marks: this node is the primary, or stale reads are accepted and
/// the primary has not answered.
pub(super) fn primary_position(node: &Arc<Node>, deadline: Instant) -> QueryResult<Marks> {
    let primary = node.primary();
    let asked = node.io.wait(async move { primary.position(deadline).await });
    let mut marks = Marks::default();
    match asked {
        Some(Ok(Some(position))) => {
            marks.add(Mark { position, primary: primary_of(node) });
            Ok(marks)
        }
        Some(Err(error)) if node.options.when_behind != WhenBehind::ReadStale => {
            Err(forwarded(error, None))
        }
        _ => Ok(marks),
    }
}

fn primary_of(node: &Node) -> Option<String> {
    match node.tracker.role() {
        Role::Replica { primary } => Some(primary.to_string()),
        _ => None,
    }
}

fn behind(node: &Node) -> QueryResult<Route> {
    match node.options.when_behind {
        WhenBehind::ReadPrimary => Ok(Route::Primary),
        WhenBehind::ReadStale => Ok(Route::Local),
        WhenBehind::Fail => Err(is_behind(node)),
    }
}
