//! Whether LiteFS has taken what SQLite committed on this node's own file.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (`db.go`, `CommitWAL`): it drops a
//! commit during the loss of the lease, and SQLite reports success. On LiteFS 0.5.14, in four of
//! seven handoffs under two busy writers, one commit of the old primary was lost that way, and the
//! guard detected each. It does not detect a commit that LiteFS takes just before it gives up the
//! lease and never sends to a replica: only a handoff avoids that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::result::QueryResult;
use litefs_core::{AfterCommit, CommitGuard, Position, RoleKind, RoleStamp, Tracker};
use litefs_rpc::CommitExpectation;
use litefs_rpc::sqlite::Native;

use crate::failure::Failure;
use crate::node::Node;

/// A commit on the local file: what was true before it.
pub(in crate::connection) struct LocalCommit {
    guard: CommitGuard,
    generation: u64,
    /// Pages of attached databases may be among those that are committed.
    mixed: bool,
    pending: Option<PendingCommit>,
}

/// Whether SQLite has begun a commit under a guard. A handoff waits for such a commit.
#[derive(Debug, Default)]
pub(in crate::connection) struct CommitState {
    armed: AtomicBool,
    begun: AtomicBool,
    /// The role when the commit began.
    begun_under: Mutex<Option<RoleStamp>>,
}

impl CommitState {
    /// SQLite begins a commit, with its write lock held.
    pub(in crate::connection) fn begin(&self, tracker: &Tracker) {
        if self.armed.load(Ordering::Relaxed) && !self.begun.swap(true, Ordering::Relaxed) {
            tracker.pending_commits().begin();
            *self.begun_under() = Some(tracker.stamp());
        }
    }
}

impl CommitState {
    fn begun_under(&self) -> MutexGuard<'_, Option<RoleStamp>> {
        self.begun_under.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until this is dropped, a commit of the connection is pending.
struct PendingCommit {
    state: Arc<CommitState>,
    tracker: Tracker,
}

impl PendingCommit {
    fn new(state: &Arc<CommitState>, tracker: &Tracker) -> Self {
        state.begun.store(false, Ordering::Relaxed);
        *state.begun_under() = None;
        state.armed.store(true, Ordering::Relaxed);
        Self { state: Arc::clone(state), tracker: tracker.clone() }
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.state.armed.store(false, Ordering::Relaxed);
        if self.state.begun.swap(false, Ordering::Relaxed) {
            self.tracker.pending_commits().end();
        }
    }
}

impl LocalCommit {
    /// Notes the role and the position before a commit. `None` where no LiteFS can lose it.
    pub(in crate::connection) fn begin(node: &Node, native: &Native, mixed: bool) -> Option<Self> {
        let (generation, stamp) = (node.ack_log.generation(), node.tracker.stamp());
        if stamp.kind() != RoleKind::Primary {
            return None;
        }
        native.watch_commits();
        Some(Self {
            guard: CommitGuard::begin(stamp, node.tracker.read_position().ok()),
            generation,
            mixed,
            pending: None,
        })
    }

    /// A handoff waits for the commit, from its begin until the guard drops.
    pub(super) fn pending(self, state: &Arc<CommitState>, tracker: &Tracker) -> Self {
        Self { pending: Some(PendingCommit::new(state, tracker)), ..self }
    }

    /// The position before the commit.
    pub(super) fn before(&self) -> Option<Position> {
        self.guard.before()
    }

    /// The acknowledgement log's when the guard began.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The role under which SQLite began the commit, with its write lock held. While the statement
    /// waited for the lock, the node may have lost its role and become the primary again.
    fn stamp(&self) -> RoleStamp {
        let begun = self.pending.as_ref().and_then(|pending| *pending.state.begun_under());
        begun.filter(|stamp| stamp.kind() == RoleKind::Primary).unwrap_or(self.guard.stamp())
    }

    /// Confirms what SQLite has committed. Returns the position, if it has advanced.
    pub(super) fn confirm(&self, node: &Node, native: &Native) -> QueryResult<Option<Position>> {
        let unconfirmed = node.tracker.unconfirmed_commit();
        let expectation = match native.committed() {
            CommitExpectation::Unchanged if unconfirmed.position().is_none() => return Ok(None),
            CommitExpectation::Unchanged => CommitExpectation::Unchanged,
            _ if self.mixed => CommitExpectation::MayAdvance,
            expectation => expectation,
        };
        let position = node.tracker.read_position();
        let role_held = node.tracker.stamp() == self.stamp();
        let after = AfterCommit { position, role_held };
        let position = self.guard.confirm(expectation, after, unconfirmed).map_err(|error| {
            let message = format!("SQLite has committed, but LiteFS may not have: {error}");
            Failure::OutcomeUnknown.error(message)
        })?;
        let wrote = expectation != CommitExpectation::Unchanged;
        Ok(Some(position).filter(|position| wrote && self.guard.before() != Some(*position)))
    }
}
