//! Checks before and after a commit that this node may write: the role guard and the position.

use std::sync::Arc;
use std::time::Instant;

use litefs_core::{AfterCommit, CommitGuard, NotConfirmed, Position};

use super::Writer;
use crate::executor::{CommitExpectation, Done, Executor};
use crate::server::verdict::Verdict;
use crate::wire::{Reply, ServerError};

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
        Ok(CommitGuard::begin(stamp, before))
    }

    /// Confirms a commit and makes its reply.
    ///
    /// A commit that SQLite reports is not enough, see [`CommitGuard`].
    pub(super) fn confirm(&self, guard: CommitGuard, done: Done) -> Result<Reply, ServerError> {
        let position = self.confirm_position(guard, done.wrote)?;
        Ok(Reply { answer: done.answer, position: Some(position), effects: done.effects })
    }

    pub(super) fn confirm_position(
        &self,
        guard: CommitGuard,
        wrote: CommitExpectation,
    ) -> Result<Position, ServerError> {
        let position = self.role_guard.position();
        if !self.prove_commits {
            return position.map_err(ServerError::unconfirmed);
        }
        let role_held = self.role_guard.holds(guard.stamp());
        let after = AfterCommit { position, role_held };
        match guard.confirm(wrote, after, self.role_guard.unconfirmed_commit()) {
            Ok(position) => {
                self.replicas.record_position(position);
                Ok(position)
            }
            Err(NotConfirmed::NotPrimary) => Err(self.not_primary()),
            Err(error) => Err(ServerError::unconfirmed(error)),
        }
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
        match Verdict::of(refusal, &*self.role_guard, guard.stamp()) {
            // SQLite has rolled back, but LiteFS may have found the commit in the WAL.
            Verdict::Refused(refusal @ (ServerError::DiskFull { .. } | ServerError::Io { .. }))
                if self.role_guard.position().ok() != guard.before() =>
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
