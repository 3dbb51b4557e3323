//! Whether LiteFS has taken what SQLite committed on this node's own file.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (`db.go`, `CommitWAL`): a commit that meets the loss of the
//! lease is dropped, and SQLite calls it a success. On LiteFS 0.5.14, in four of seven handoffs under two tight writers one
//! commit of the old primary was lost that way, and each was seen by what is asked here. A commit that LiteFS takes just
//! before it gives up the lease, and never ships, is not: only a drained handoff avoids that.

use diesel::result::QueryResult;
use litefs_core::{Position, PositionError, RoleKind, RoleStamp};

use super::LiteFsConnection;
use super::acknowledgement::note_local;
use super::destination::Phase;
use super::forward::replicas_have;
use crate::Failure;
use crate::durability::Durability;
use crate::losses::Acknowledgement;

/// The standing under which a write on the local file began.
pub(super) struct Ticket {
    stamp: RoleStamp,
    generation: u64,
    before: Option<Position>,
}

impl LiteFsConnection {
    /// To be drawn before a statement that commits by itself.
    pub(super) fn autocommit_ticket(&self) -> Option<Ticket> {
        if self.phase() == Phase::Autocommit { self.commit_ticket() } else { None }
    }

    /// To be drawn before COMMIT. `None` where there is no LiteFS to lose anything.
    pub(super) fn commit_ticket(&self) -> Option<Ticket> {
        let shared = self.home.as_ref()?;
        let (generation, stamp) = (shared.ledger.generation(), shared.tracker.stamp());
        let before = || shared.tracker.read_position().ok();
        (stamp.kind() == RoleKind::Primary).then(|| Ticket { stamp, generation, before: before() })
    }

    /// After SQLite's word: the position can be read and this node is still the primary it was. `changed`: the position
    /// should have advanced. It does not where rows were set to what they were, so then LiteFS is asked again.
    pub(super) fn prove(&mut self, ticket: Option<Ticket>, changed: bool) -> QueryResult<()> {
        let (Some(ticket), Some(shared)) = (ticket, self.home.as_ref()) else { return Ok(()) };
        shared.committed_here();
        if !shared.options.prove_commits {
            return Ok(());
        }
        let unproven = |why: &dyn std::fmt::Display| {
            Err(Failure::OutcomeUnknown
                .error(format!("SQLite has committed, but LiteFS may not have: {why}")))
        };
        let mut reached = None;
        match shared.tracker.read_position() {
            // There never was one: nothing has been committed to this database yet, this included.
            Err(PositionError::Absent(_) | PositionError::NoDatabase(_))
                if !changed && ticket.before.is_none() => {}
            Err(error) => return unproven(&error),
            Ok(position) if changed && ticket.before == Some(position) => {
                let tracker = shared.tracker.clone();
                shared.io.wait(async move { tracker.confirm().await });
            }
            Ok(position) => reached = Some(position).filter(|position| ticket.before != Some(*position)),
        }
        if shared.tracker.stamp() != ticket.stamp {
            return unproven(&"the role changed during the commit");
        }
        if let Some(position) = reached {
            note_local(shared, position, ticket.generation);
            self.acknowledgement = Some(Acknowledgement { position, request: None });
        }
        match (shared.options.durability, reached) {
            (Durability::Replicas(replicas), Some(position)) => replicas_have(shared, position, replicas),
            _ => Ok(()),
        }
    }
}
