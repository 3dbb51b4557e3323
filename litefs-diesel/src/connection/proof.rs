//! Whether LiteFS has taken what SQLite committed on this node's own file.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (`db.go`, `CommitWAL`): a commit
//! that meets the loss of the lease is dropped, and SQLite calls it a success. On LiteFS 0.5.14, in
//! four of seven handoffs under two tight writers one commit of the old primary was lost that way,
//! and each was seen by what is asked here. A commit that LiteFS takes just before it gives up the
//! lease, and never ships, is not: only a drained handoff avoids that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::result::QueryResult;
use litefs_core::{AfterCommit, CommitGuard, Position, RoleKind, Tracker};
use litefs_rpc::CommitExpectation;
use litefs_rpc::sqlite::Native;

use super::LiteFsConnection;
use super::acknowledgement::note_local;
use super::decide::phase::Phase;
use super::remote::write::replicas_have;
use crate::Failure;
use crate::access::{Access, Class};
use crate::loss::ack_log::Acknowledgement;
use crate::node::Node;
use crate::options::durability::Durability;

/// What was true before a commit on the local file.
pub(super) struct LocalCommit {
    guard: CommitGuard,
    generation: u64,
    /// Pages of attached databases may be among those that are committed.
    mixed: bool,
    _pending: Option<PendingCommit>,
}

/// Whether SQLite has begun a commit under the guard that is out, which a handoff waits for.
#[derive(Debug, Default)]
pub(super) struct CommitState {
    armed: AtomicBool,
    begun: AtomicBool,
}

impl CommitState {
    /// SQLite begins a commit, with its write lock held.
    pub(super) fn begin(&self, tracker: &Tracker) {
        if self.armed.load(Ordering::Relaxed) && !self.begun.swap(true, Ordering::Relaxed) {
            tracker.pending_commits().begin();
        }
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
    /// To be taken before the commit. `None` where there is no LiteFS to lose anything.
    pub(super) fn begin(node: &Node, native: &Native, mixed: bool) -> Option<Self> {
        let (generation, stamp) = (node.ack_log.generation(), node.tracker.stamp());
        if stamp.kind() != RoleKind::Primary {
            return None;
        }
        native.watch_commits();
        Some(Self {
            guard: CommitGuard::begin(stamp, node.tracker.read_position().ok()),
            generation,
            mixed,
            _pending: None,
        })
    }

    /// Confirms what SQLite has committed. Returns the position, if it has advanced.
    fn confirm(&self, node: &Node, native: &Native) -> QueryResult<Option<Position>> {
        let unconfirmed = node.tracker.unconfirmed_commit();
        let expectation = match native.committed() {
            CommitExpectation::Unchanged if unconfirmed.position().is_none() => return Ok(None),
            CommitExpectation::Unchanged => CommitExpectation::Unchanged,
            _ if self.mixed => CommitExpectation::MayAdvance,
            expectation => expectation,
        };
        let position = node.tracker.read_position();
        let role_held = node.tracker.stamp() == self.guard.stamp();
        let after = AfterCommit { position, role_held };
        let position = self.guard.confirm(expectation, after, unconfirmed).map_err(|error| {
            let message = format!("SQLite has committed, but LiteFS may not have: {error}");
            Failure::OutcomeUnknown.error(message)
        })?;
        let wrote = expectation != CommitExpectation::Unchanged;
        Ok(Some(position).filter(|position| wrote && self.guard.before() != Some(*position)))
    }
}

impl LiteFsConnection {
    /// To be taken before a statement that may commit by itself.
    pub(super) fn autocommit_guard(&mut self, class: Class) -> Option<LocalCommit> {
        self.committing_from = None;
        let writes = class.access == Access::Write || class.may_write();
        if writes && self.phase() == Phase::Autocommit {
            let mixed = class.writes_locally && self.local.has_attached();
            self.commit_guard(mixed)
        } else {
            None
        }
    }

    /// To be taken before COMMIT.
    pub(super) fn commit_guard(&mut self, mixed: bool) -> Option<LocalCommit> {
        let node = self.home.as_ref()?;
        let pending = PendingCommit::new(&self.commit_state, &node.tracker);
        let commit = LocalCommit::begin(node, self.local.native(), mixed);
        let commit = commit.map(|commit| LocalCommit { _pending: Some(pending), ..commit });
        self.committing_from = commit.as_ref().and_then(|commit| commit.guard.before());
        commit
    }

    /// After SQLite has committed on this connection: the commit is LiteFS's too, and those have it
    /// that must.
    pub(super) fn confirm(&mut self, guard: Option<LocalCommit>) -> QueryResult<()> {
        let (Some(guard), Some(node)) = (guard, self.home.clone()) else { return Ok(()) };
        if !self.local.is_autocommit() {
            return Err(self.roll_back_unknown());
        }
        self.confirm_by(&guard, &node, None)
    }

    /// The same for a commit on another connection.
    pub(super) fn confirm_by(
        &mut self,
        guard: &LocalCommit,
        node: &Node,
        other: Option<&Native>,
    ) -> QueryResult<()> {
        node.committed_here();
        if !node.options.prove_commits {
            return Ok(());
        }
        let Some(position) = guard.confirm(node, other.unwrap_or(self.local.native()))? else {
            return Ok(());
        };
        note_local(node, position, guard.generation);
        self.acknowledgement = Some(Acknowledgement { position, request: None });
        match node.options.durability {
            Durability::Replicas(replicas) => replicas_have(node, position, replicas),
            _ => Ok(()),
        }
    }

    /// SQLite is inside a transaction that this connection knows nothing of, so what was to be
    /// committed is not.
    fn roll_back_unknown(&mut self) -> diesel::result::Error {
        self.local.roll_back();
        Failure::TransactionLost.error(
            "SQLite was inside a transaction that this connection had not opened; it is rolled \
             back, with all that ran in it",
        )
    }
}
