//! [`CommitGuard`]: whether LiteFS has taken what SQLite has committed.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (LiteFS: `db.go`, `CommitWAL`). If
//! the node loses its lease at that moment, LiteFS drops the transaction and SQLite still reports
//! success. The guard detects this: it compares the role and the position before and after the
//! commit. On LiteFS 0.5.14 it detected each commit that a handoff between two busy writers
//! dropped.
//!
//! It cannot detect a transaction that LiteFS takes just before it gives up the lease and never
//! sends to a replica. Only a handoff that waits for the replicas avoids that.

use std::fmt::Display;
use std::sync::Mutex;

use crate::sync::lock;
use crate::{Position, RoleStamp};

/// Whether a commit must advance LiteFS's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommitExpectation {
    /// No pages were written: the position stays. An UPDATE that matches no row, or that sets rows
    /// to the values they have, writes none.
    Unchanged,
    /// Pages of the database were written: the position must advance.
    Advances,
    /// Pages of the database were written, and this was the position when the last commit began,
    /// read with the write lock held: the position must advance beyond it.
    AdvancesFrom(Position),
    /// Pages were written, but all of them may belong to attached databases, which SQLite counts
    /// together with those of this one: the position may advance or stay.
    MayAdvance,
    /// One of several commits has not advanced the position.
    Dropped,
}

impl CommitExpectation {
    /// What is expected after these commits and then `later` ones.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        match (self, later) {
            (Self::Dropped, _) | (_, Self::Dropped) => Self::Dropped,
            (Self::AdvancesFrom(one), Self::AdvancesFrom(other)) if one == other => Self::Dropped,
            (Self::Unchanged, later) => later,
            (earlier, Self::Unchanged | Self::MayAdvance) => earlier,
            (_, later) => later,
        }
    }
}

/// What was observed after SQLite has committed.
///
/// Read the position first and the role second: a role that still holds then held while the
/// position was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AfterCommit<E> {
    /// LiteFS's position, or why it cannot be read.
    pub position: Result<Position, E>,
    /// Whether the role is the one of [`CommitGuard::stamp`].
    pub role_held: bool,
}

/// Why a commit is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConfirmed {
    /// Nothing was written, and this node is not the primary any more: the work may run elsewhere.
    #[error("this node is not the primary any more")]
    NotPrimary,
    /// The position cannot be read, for this reason.
    #[error("the position cannot be read: {0}")]
    Unreadable(String),
    /// The node lost or changed its role during the commit, perhaps only for a moment.
    #[error("the role changed during the commit")]
    RoleChanged,
    /// One of several commits has not moved the position.
    #[error("LiteFS has not taken one of several commits")]
    Dropped,
    /// SQLite has committed this commit or an earlier one, and the position has not moved since.
    #[error("SQLite has committed, but LiteFS's position is the same as before: {0}")]
    SamePosition(Position),
}

/// The role and the position before a commit.
///
/// ```
/// # use litefs_core::{AfterCommit, CommitExpectation, CommitGuard, NotConfirmed, Tracker};
/// # fn commit() -> CommitExpectation { CommitExpectation::Advances }
/// # fn example(tracker: &Tracker) -> Result<(), NotConfirmed> {
/// let guard = CommitGuard::begin(tracker.stamp(), tracker.read_position().ok());
/// let expectation = commit();
/// let after = AfterCommit {
///     position: tracker.read_position(),
///     role_held: tracker.stamp() == guard.stamp(),
/// };
/// let position = guard.confirm(expectation, after, tracker.unconfirmed_commit())?;
/// println!("LiteFS has taken the commit; the database is at {position}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a commit is only confirmed by `confirm`"]
pub struct CommitGuard {
    stamp: RoleStamp,
    before: Option<Position>,
}

impl CommitGuard {
    /// Notes the role and the position. `before` is `None` if the position cannot be read, as
    /// before the first write to a database; then any position afterwards counts as advanced.
    ///
    /// The stamp must be read before the position, and both before SQLite commits.
    pub const fn begin(stamp: RoleStamp, before: Option<Position>) -> Self {
        Self { stamp, before }
    }

    /// The same guard with the position that was read once the write lock was held.
    pub const fn locked_at(self, before: Option<Position>) -> Self {
        Self { before, ..self }
    }

    /// The role before the commit.
    #[must_use]
    pub const fn stamp(&self) -> RoleStamp {
        self.stamp
    }

    /// The position before the commit.
    #[must_use]
    pub const fn before(&self) -> Option<Position> {
        self.before
    }

    /// Compares what was true before one or several commits with what is true after them. Returns
    /// the position, also if nothing was written. Does not block.
    ///
    /// A commit that may have been dropped is noted in `unconfirmed`. Until the position has moved
    /// on from there, no other work is confirmed: what it has read, a stored outcome for example,
    /// may be in SQLite and not in LiteFS.
    ///
    /// # Errors
    /// [`NotConfirmed`].
    pub fn confirm<E: Display>(
        &self,
        expectation: CommitExpectation,
        after: AfterCommit<E>,
        unconfirmed: &UnconfirmedCommit,
    ) -> Result<Position, NotConfirmed> {
        let AfterCommit { position, role_held } = after;
        let dropped_at = self.may_be_dropped(expectation, position.as_ref().ok().copied());
        if let Some(begun_at) = dropped_at {
            unconfirmed.note(begun_at);
        }
        if expectation == CommitExpectation::Unchanged && !role_held {
            return Err(NotConfirmed::NotPrimary);
        }
        let position = position.map_err(|error| NotConfirmed::Unreadable(error.to_string()))?;
        if !role_held {
            Err(NotConfirmed::RoleChanged)
        } else if expectation == CommitExpectation::Dropped {
            Err(NotConfirmed::Dropped)
        } else if dropped_at.is_some() || unconfirmed.position() == Some(position) {
            Err(NotConfirmed::SamePosition(position))
        } else {
            Ok(position)
        }
    }

    /// The position at which a commit began that may not have advanced it.
    fn may_be_dropped(
        &self,
        expectation: CommitExpectation,
        now: Option<Position>,
    ) -> Option<Position> {
        let begun_at = match expectation {
            CommitExpectation::Unchanged | CommitExpectation::MayAdvance => return None,
            CommitExpectation::Dropped => return now.or(self.before),
            CommitExpectation::Advances => self.before,
            CommitExpectation::AdvancesFrom(before) => Some(before),
        };
        begun_at.filter(|begun_at| now.is_none_or(|now| now == *begun_at))
    }
}

/// The position at which the last commit began that SQLite has and LiteFS may not have.
///
/// One for all connections of a process to a database, as they see each other's commits in SQLite.
#[derive(Debug, Default)]
pub struct UnconfirmedCommit(Mutex<Option<Position>>);

impl UnconfirmedCommit {
    /// The position; `None` if each commit of this process was confirmed so far.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        *lock(&self.0)
    }

    fn note(&self, begun_at: Position) {
        *lock(&self.0) = Some(begun_at);
    }
}

#[cfg(test)]
mod tests;
