//! Whether LiteFS has taken what SQLite committed on this node's own file.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (`db.go`, `CommitWAL`): a commit that meets the loss of the
//! lease is dropped, and SQLite calls it a success. On LiteFS 0.5.14, in four of seven handoffs under two tight writers one
//! commit of the old primary was lost that way, and each was seen by what is asked here. A commit that LiteFS takes just
//! before it gives up the lease, and never ships, is not: only a drained handoff avoids that.

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;
use litefs_core::{Position, PositionError, RoleKind, RoleStamp};
use litefs_rpc::sqlite::Native;

use super::LiteFsConnection;
use super::acknowledgement::note_local;
use super::destination::Phase;
use super::remote::write::replicas_have;
use crate::Failure;
use crate::access::{Access, Class};
use crate::loss::ack_log::Acknowledgement;
use crate::node::Node;
use crate::options::durability::Durability;

/// What was true before a commit on the local file.
pub(super) struct Ticket {
    stamp: RoleStamp,
    generation: u64,
    before: Option<Position>,
    pages: i32,
    /// Pages of temporary or attached databases may be among those that are committed.
    mixed: bool,
}

impl Ticket {
    /// To be drawn before the commit. `None` where there is no LiteFS to lose anything.
    pub(super) fn draw(node: &Node, native: &Native, mixed: bool) -> Option<Self> {
        let (generation, stamp) = (node.ack_log.generation(), node.tracker.stamp());
        let before = || node.tracker.read_position().ok();
        let pages = native.pages_written();
        let ticket = || Self { stamp, generation, before: before(), pages, mixed };
        (stamp.kind() == RoleKind::Primary).then(ticket)
    }

    /// After SQLite's word: LiteFS's position has advanced if SQLite wrote pages, and this node is still the primary
    /// it was. Answers the position, if it has advanced.
    fn confirm(&self, node: &Node, native: &Native) -> QueryResult<Option<Position>> {
        let unconfirmed = |why: &dyn std::fmt::Display| {
            Err(Failure::OutcomeUnknown
                .error(format!("SQLite has committed, but LiteFS may not have: {why}")))
        };
        let wrote = native.pages_written() != self.pages;
        let reached = match node.tracker.read_position() {
            // There never was one: nothing has been committed to this database yet, this included.
            Err(PositionError::Absent(_) | PositionError::NoDatabase(_))
                if !wrote && self.before.is_none() =>
            {
                None
            }
            Err(error) => return unconfirmed(&error),
            Ok(position) => Some(position).filter(|position| self.before != Some(*position)),
        };
        if node.tracker.stamp() != self.stamp {
            return unconfirmed(&"the role changed during the commit");
        }
        if wrote && reached.is_none() && !self.mixed {
            return unconfirmed(&"its position is the same as before");
        }
        Ok(reached.filter(|_| wrote))
    }
}

impl LiteFsConnection {
    /// To be drawn before a statement that may commit by itself.
    pub(super) fn autocommit_ticket(&mut self, class: Class) -> Option<Ticket> {
        self.committing_from = None;
        let writes = class.access == Access::Write || class.may_write();
        if writes && self.phase() == Phase::Autocommit {
            self.commit_ticket(class.writes_locally)
        } else {
            None
        }
    }

    /// To be drawn before COMMIT.
    pub(super) fn commit_ticket(&mut self, mixed: bool) -> Option<Ticket> {
        let ticket = Ticket::draw(self.home.as_ref()?, &self.native, mixed);
        self.committing_from = ticket.as_ref().and_then(|ticket| ticket.before);
        ticket
    }

    /// After SQLite has committed on this connection: the commit is LiteFS's too, and those have it that must.
    pub(super) fn prove(&mut self, ticket: Option<Ticket>) -> QueryResult<()> {
        let (Some(ticket), Some(node)) = (ticket, self.home.clone()) else { return Ok(()) };
        if !self.native.is_autocommit() {
            return Err(self.roll_back_unknown());
        }
        self.prove_by(&ticket, &node, None)
    }

    /// The same for a commit on another connection.
    pub(super) fn prove_by(
        &mut self,
        ticket: &Ticket,
        node: &Node,
        other: Option<&Native>,
    ) -> QueryResult<()> {
        node.committed_here();
        if !node.options.prove_commits {
            return Ok(());
        }
        let Some(position) = ticket.confirm(node, other.unwrap_or(&self.native))? else { return Ok(()) };
        note_local(node, position, ticket.generation);
        self.acknowledgement = Some(Acknowledgement { position, request: None });
        match node.options.durability {
            Durability::Replicas(replicas) => replicas_have(node, position, replicas),
            _ => Ok(()),
        }
    }

    /// SQLite is inside a transaction that this connection knows nothing of, so what was to be committed is not.
    fn roll_back_unknown(&mut self) -> diesel::result::Error {
        let _silent = self.silence.keep();
        let _ = self.local.batch_execute("ROLLBACK");
        Failure::TransactionLost.error(
            "SQLite was inside a transaction that this connection had not opened; it is rolled back, with all that ran in \
             it",
        )
    }
}
