//! Commits on this node's own file, and the acknowledgement of writes.

mod guard;

use std::sync::Arc;

use diesel::result::{Error, QueryResult};
use litefs_core::{Position, Role};
use litefs_rpc::sqlite::Native;
use litefs_rpc::wire::RequestId;

use self::guard::CommitState;
pub(super) use self::guard::LocalCommit;
use super::local::Local;
use super::replication::wait_for_replicas;
use crate::failure::Failure;
use crate::loss::ack_log::{Acknowledged, Acknowledgement};
use crate::node::{Node, read_positions};
use crate::options::durability::Durability;

/// Commits on this node's own file, and what the last write was acknowledged with.
#[derive(Debug, Default)]
pub(super) struct Commits {
    state: Arc<CommitState>,
    /// The position before the last commit on this node's own file.
    committing_from: Option<Position>,
    acknowledgement: Option<Acknowledgement>,
}

impl Commits {
    /// Has SQLite report when it begins a commit.
    pub(super) fn watch(&self, node: &Node, local: &Local) {
        let (state, tracker) = (Arc::clone(&self.state), node.tracker.clone());
        let read = read_positions(node.tracker.clone());
        local.native().read_positions_by(Box::new(move || {
            state.begin(&tracker);
            read()
        }));
    }

    /// A statement begins that is not known to commit.
    pub(super) fn expect_none(&mut self) {
        self.committing_from = None;
    }

    /// To be called before a statement that may commit. `mixed`: pages of attached databases may be
    /// among those that are committed. `None`: no LiteFS can lose the commit.
    pub(super) fn guard(&mut self, node: &Node, local: &Local, mixed: bool) -> Option<LocalCommit> {
        let guard = LocalCommit::begin(node, local.native(), mixed);
        let guard = guard.map(|guard| guard.pending(&self.state, &node.tracker));
        self.committing_from = guard.as_ref().and_then(LocalCommit::before);
        guard
    }

    /// After SQLite has committed on this connection: LiteFS has the commit too, and so have the
    /// replicas that must.
    pub(super) fn confirm(
        &mut self,
        guard: Option<LocalCommit>,
        node: &Node,
        local: &mut Local,
    ) -> QueryResult<()> {
        let Some(guard) = guard else { return Ok(()) };
        if !local.is_autocommit() {
            return Err(roll_back_unknown(local));
        }
        self.confirm_on(&guard, node, local.native())
    }

    /// The same for a commit on any connection to the file.
    pub(super) fn confirm_on(
        &mut self,
        guard: &LocalCommit,
        node: &Node,
        native: &Native,
    ) -> QueryResult<()> {
        node.committed_here();
        if !node.options.prove_commits {
            return Ok(());
        }
        let Some(position) = guard.confirm(node, native)? else { return Ok(()) };
        self.acknowledgement = Some(Acknowledgement { position, request: None });
        // The write has no id, so the loss detector has to find it by the terms.
        node.ack_log.note(Acknowledged {
            primary: None,
            position,
            request: None,
            // Of the role under which it was confirmed, or of a later one that cannot have it any
            // earlier.
            term: node.tracker.subscribe().borrow().term_start,
            generation: guard.generation(),
        });
        match node.options.durability {
            Durability::Replicas(replicas) => wait_for_replicas(node, position, replicas),
            _ => Ok(()),
        }
    }

    /// Whether the database has changed since the last commit on this node's own file began.
    /// `false` where that is not known.
    pub(super) fn has_moved(&self, node: &Node) -> bool {
        self.committing_from.is_some_and(|before| node.tracker.read_position().ok() != Some(before))
    }

    /// What the last write was acknowledged with.
    pub(super) fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.acknowledgement
    }

    /// A forwarded write is acknowledged: the history of every later primary must have it. If the
    /// role has changed since the answer came, the name is that of the next primary; the id finds
    /// the write all the same.
    pub(super) fn acknowledge(
        &mut self,
        node: &Node,
        position: Position,
        request: Option<RequestId>,
        generation: u64,
    ) {
        self.acknowledgement = Some(Acknowledgement { position, request });
        let primary = match node.tracker.role() {
            Role::Replica { primary } => Some(primary),
            _ => None,
        };
        node.ack_log.note(Acknowledged { primary, position, request, term: None, generation });
    }
}

/// SQLite is inside a transaction that this connection has not opened, so the statement has not
/// committed.
fn roll_back_unknown(local: &mut Local) -> Error {
    local.roll_back();
    Failure::TransactionLost.error(
        "SQLite was inside a transaction that this connection had not opened; it is rolled back, \
         with all that ran in it",
    )
}
