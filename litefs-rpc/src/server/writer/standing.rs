//! Whether this node may write, before and after: the fence and the proof.

use std::sync::Arc;
use std::time::Instant;

use litefs_core::{Position, RoleStamp};

use super::Writer;
use crate::executor::{Done, Executor, Wrote};
use crate::server::verdict::Verdict;
use crate::wire::{Refusal, Reply};

/// The standing under which work was begun.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    pub(super) stamp: RoleStamp,
    pub(super) before: Option<Position>,
}

impl<E: Executor> Writer<E> {
    /// Work past its deadline is not started.
    pub(super) fn admit(&mut self, deadline: Instant) -> Result<Ticket, Refusal> {
        if Instant::now() >= deadline {
            return Err(Refusal::TooLate);
        }
        self.enter()
    }

    /// Only a primary starts any work.
    pub(super) fn enter(&mut self) -> Result<Ticket, Refusal> {
        let stamp = self.fence.writable().ok_or_else(|| self.not_primary())?;
        if self.term.replace(stamp) != Some(stamp) {
            self.executor.term_started();
        }
        let before = self.fence.position().ok();
        Ok(Ticket { stamp, before })
    }

    /// SQLite's word for a commit is not enough: LiteFS commits inside an unlock whose errors SQLite ignores. An
    /// acknowledgement takes a position that advanced, on a node that is still the primary it was.
    pub(super) fn prove(&self, ticket: Ticket, done: Done) -> Result<Reply, Refusal> {
        let position = self.prove_position(ticket, done.wrote)?;
        Ok(Reply { answer: done.answer, position: Some(position), effects: done.effects })
    }

    pub(super) fn prove_position(&self, ticket: Ticket, wrote: Wrote) -> Result<Position, Refusal> {
        let position =
            self.fence.position().map_err(|error| unproven("the position cannot be read: ", error))?;
        if !self.prove_commits {
            return Ok(position);
        }
        if !self.fence.holds(ticket.stamp) {
            return Err(unproven("the role changed during the commit", ""));
        }
        if wrote == Wrote::Pages && ticket.before == Some(position) {
            return Err(unproven(
                "SQLite has committed, but LiteFS's position is the same as before: ",
                position,
            ));
        }
        self.followers.note(position);
        Ok(position)
    }

    /// Asks LiteFS anew. Blocks.
    pub(super) fn confirm(&self) {
        let fence = Arc::clone(&self.fence);
        self.wait(async move { fence.confirm().await });
    }

    /// Why work failed: this node may learn here first that it is not the primary any more or that its mount is gone.
    pub(super) fn judge(&self, refusal: Refusal, ticket: Ticket) -> Verdict {
        if refusal.symptom().is_suspicious() {
            self.confirm();
        }
        match Verdict::of(refusal, &*self.fence, ticket.stamp) {
            // SQLite has taken it back, LiteFS may have found it in the WAL.
            Verdict::Refused(refusal @ (Refusal::DiskFull { .. } | Refusal::Io { .. }))
                if self.fence.position().ok() != ticket.before =>
            {
                Verdict::Refused(unproven("the position moved although SQLite failed: ", refusal))
            }
            verdict => verdict,
        }
    }

    pub(super) fn not_primary(&self) -> Refusal {
        Refusal::NotPrimary { hint: self.fence.hint() }
    }
}

pub(in crate::server) fn unproven(what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::Unproven { reason: format!("{what}{why}") }
}
