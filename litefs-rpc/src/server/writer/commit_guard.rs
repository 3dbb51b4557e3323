//! Checks before and after a commit that this node may write: the role guard and the position.

use std::sync::Arc;
use std::time::Instant;

use litefs_core::{Position, RoleStamp};

use super::Writer;
use crate::executor::{CommitExpectation, Done, Executor};
use crate::server::verdict::Verdict;
use crate::wire::{Reply, ServerError};

/// The role and the position under which a job was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitGuard {
    pub(super) stamp: RoleStamp,
    pub(super) before: Option<Position>,
}

impl<E: Executor> Writer<E> {
    /// Starts a job, unless its deadline has passed.
    pub(super) fn admit(&mut self, deadline: Instant) -> Result<CommitGuard, ServerError> {
        if Instant::now() >= deadline {
            return Err(ServerError::TooLate);
        }
        self.guard()
    }

    /// Starts a job if this node is the primary.
    pub(super) fn guard(&mut self) -> Result<CommitGuard, ServerError> {
        let stamp = self.role_guard.writable().ok_or_else(|| self.not_primary())?;
        if self.term.replace(stamp) != Some(stamp) {
            self.executor.term_started();
        }
        let before = self.role_guard.position().ok();
        Ok(CommitGuard { stamp, before })
    }

    /// Confirms a commit and makes its reply.
    ///
    /// A commit that SQLite reports is not enough: LiteFS commits during an unlock, and SQLite
    /// ignores the errors of an unlock. A write is acknowledged only if the position has advanced
    /// and this node has stayed the primary.
    pub(super) fn confirm(&self, guard: CommitGuard, done: Done) -> Result<Reply, ServerError> {
        let position = self.confirm_position(guard, done.wrote)?;
        Ok(Reply { answer: done.answer, position: Some(position), effects: done.effects })
    }

    pub(super) fn confirm_position(
        &self,
        guard: CommitGuard,
        wrote: CommitExpectation,
    ) -> Result<Position, ServerError> {
        let position = self.role_guard.position().map_err(|error| {
            ServerError::unconfirmed(format!("the position cannot be read: {error}"))
        })?;
        if !self.prove_commits {
            return Ok(position);
        }
        if !self.role_guard.holds(guard.stamp) {
            return Err(ServerError::unconfirmed("the role changed during the commit"));
        }
        let before = match wrote {
            CommitExpectation::Unchanged => None,
            CommitExpectation::Advances => guard.before,
            CommitExpectation::AdvancesFrom(before) => Some(before),
            CommitExpectation::Dropped => {
                return Err(ServerError::unconfirmed(
                    "LiteFS has not taken one of several commits",
                ));
            }
        };
        if before == Some(position) {
            self.unconfirmed_at.set(Some(position));
        }
        // What SQLite has, an outcome too, is not LiteFS's before the position has moved on.
        if self.unconfirmed_at.get() == Some(position) {
            return Err(ServerError::unconfirmed(format!(
                "SQLite has committed, but LiteFS's position is the same as before: {position}"
            )));
        }
        self.replicas.record_position(position);
        Ok(position)
    }

    /// Asks LiteFS for the role and the mount. Blocks.
    pub(super) fn recheck_role(&self) {
        let role_guard = Arc::clone(&self.role_guard);
        self.wait(async move { role_guard.confirm().await });
    }

    /// Decides what a failure means: SQLite may report a demotion or a lost mount before LiteFS
    /// does.
    pub(super) fn judge(&self, refusal: ServerError, guard: CommitGuard) -> Verdict {
        if refusal.symptom().is_suspicious() {
            self.recheck_role();
        }
        match Verdict::of(refusal, &*self.role_guard, guard.stamp) {
            // SQLite has rolled back, but LiteFS may have found the commit in the WAL.
            Verdict::Refused(refusal @ (ServerError::DiskFull { .. } | ServerError::Io { .. }))
                if self.role_guard.position().ok() != guard.before =>
            {
                Verdict::Refused(ServerError::unconfirmed(format!(
                    "the position moved although SQLite failed: {refusal}"
                )))
            }
            verdict => verdict,
        }
    }

    pub(super) fn not_primary(&self) -> ServerError {
        ServerError::NotPrimary { hint: self.role_guard.hint() }
    }
}
