//! Whether this node may write, before and after: the role guard and the proof.

use std::sync::Arc;
use std::time::Instant;

use litefs_core::{Position, RoleStamp};

use super::Writer;
use crate::executor::{CommitExpectation, Done, Executor};
use crate::server::verdict::Verdict;
use crate::wire::{Reply, ServerError};

/// The standing under which work was begun.
#[derive(Clone, Copy)]
pub(super) struct CommitGuard {
    pub(super) stamp: RoleStamp,
    pub(super) before: Option<Position>,
}

impl<E: Executor> Writer<E> {
    /// Command past its deadline is not started.
    pub(super) fn admit(&mut self, deadline: Instant) -> Result<CommitGuard, ServerError> {
        if Instant::now() >= deadline {
            return Err(ServerError::TooLate);
        }
        self.enter()
    }

    /// Only a primary starts any work.
    pub(super) fn enter(&mut self) -> Result<CommitGuard, ServerError> {
        let stamp = self.role_guard.writable().ok_or_else(|| self.not_primary())?;
        if self.term.replace(stamp) != Some(stamp) {
            self.executor.term_started();
        }
        let before = self.role_guard.position().ok();
        Ok(CommitGuard { stamp, before })
    }

    /// SQLite's word for a commit is not enough: LiteFS commits inside an unlock whose errors SQLite ignores. An
    /// acknowledgement takes a position that advanced, on a node that is still the primary it was.
    pub(super) fn prove(&self, guard: CommitGuard, done: Done) -> Result<Reply, ServerError> {
        let position = self.prove_position(guard, done.wrote)?;
        Ok(Reply { answer: done.answer, position: Some(position), effects: done.effects })
    }

    pub(super) fn prove_position(
        &self,
        guard: CommitGuard,
        wrote: CommitExpectation,
    ) -> Result<Position, ServerError> {
        let position = self
            .role_guard
            .position()
            .map_err(|error| unconfirmed("the position cannot be read: ", error))?;
        if !self.prove_commits {
            return Ok(position);
        }
        if !self.role_guard.holds(guard.stamp) {
            return Err(unconfirmed("the role changed during the commit", ""));
        }
        if wrote == CommitExpectation::Advances && guard.before == Some(position) {
            return Err(unconfirmed(
                "SQLite has committed, but LiteFS's position is the same as before: ",
                position,
            ));
        }
        self.replicas.note(position);
        Ok(position)
    }

    /// Asks LiteFS anew. Blocks.
    pub(super) fn confirm(&self) {
        let role_guard = Arc::clone(&self.role_guard);
        self.wait(async move { role_guard.confirm().await });
    }

    /// Why work failed: this node may learn here first that it is not the primary any more or that its mount is gone.
    pub(super) fn judge(&self, refusal: ServerError, guard: CommitGuard) -> Verdict {
        if refusal.symptom().is_suspicious() {
            self.confirm();
        }
        match Verdict::of(refusal, &*self.role_guard, guard.stamp) {
            // SQLite has taken it back, LiteFS may have found it in the WAL.
            Verdict::Refused(refusal @ (ServerError::DiskFull { .. } | ServerError::Io { .. }))
                if self.role_guard.position().ok() != guard.before =>
            {
                Verdict::Refused(unconfirmed("the position moved although SQLite failed: ", refusal))
            }
            verdict => verdict,
        }
    }

    pub(super) fn not_primary(&self) -> ServerError {
        ServerError::NotPrimary { hint: self.role_guard.hint() }
    }
}

pub(in crate::server) fn unconfirmed(what: &str, why: impl std::fmt::Display) -> ServerError {
    ServerError::Unconfirmed { reason: format!("{what}{why}") }
}
