//! [`CommitGuard`]: whether LiteFS has taken a transaction that SQLite has committed.
//!
//! LiteFS commits inside an unlock whose errors SQLite ignores (LiteFS: `db.go`, `CommitWAL`). If
//! the node loses its lease at that moment, LiteFS drops the transaction and SQLite still reports
//! success. The guard detects this: it compares the role and the position before and after the
//! commit.
//!
//! It cannot detect a transaction that LiteFS takes just before it gives up the lease and never
//! sends to a replica. Only a handoff that waits for the replicas avoids that.

use crate::{Position, PositionError, RoleStamp};

/// Whether a commit moves the position of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitExpectation {
    /// SQLite wrote pages of the database: the position must advance.
    Advances,
    /// SQLite wrote no page: the position may stay. An UPDATE that matches no row, or that sets
    /// each row to the values it already has, writes none.
    Unchanged,
    /// SQLite wrote pages, but all of them may belong to temporary or attached databases: the
    /// position may advance or stay.
    Unknown,
}

/// Why it is not known whether LiteFS has taken a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// The position after the commit cannot be read, for this reason.
    #[error("the position cannot be read: {0}")]
    Unreadable(String),
    /// The node lost or changed its role between the two observations, perhaps only for a moment.
    #[error("the role changed during the commit")]
    RoleChanged,
    /// SQLite wrote pages of the database, and the position did not change.
    #[error("SQLite has committed, but LiteFS's position is the same as before: {0}")]
    SamePosition(Position),
}

/// The role and the position before a commit.
///
/// ```
/// # use litefs_core::{CommitExpectation, CommitGuard, PositionError, Tracker, Unconfirmed};
/// # fn commit() -> CommitExpectation { CommitExpectation::Advances }
/// # fn example(tracker: &Tracker) -> Result<(), Unconfirmed> {
/// let guard = CommitGuard::begin(tracker.stamp(), tracker.read_position().ok());
/// let expectation = commit();
/// // The position first, then the role: see `confirm`.
/// let after = tracker.read_position();
/// if let Some(position) = guard.confirm(after, tracker.stamp(), expectation)? {
///     println!("LiteFS has taken the commit; the database is at {position}");
/// }
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
    /// Remembers the role and the position. `before` is `None` if the position cannot be read,
    /// as before the first write to a database; then any position afterwards counts as advanced.
    ///
    /// The stamp must be read before the position, and both before SQLite commits.
    pub const fn begin(stamp: RoleStamp, before: Option<Position>) -> Self {
        Self { stamp, before }
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

    /// Compares what was true before a commit with what is true after it. Pure: does not block.
    ///
    /// Returns the position if the commit advanced it, and `None` if nothing was written to the
    /// database. A position that another transaction moved meanwhile is not returned for
    /// [`CommitExpectation::Unchanged`].
    ///
    /// Read `after` first and `role` second: a role that still holds then held while the position
    /// was read. `role` is `None` if this node may not write; a [`RoleStamp`] can be passed as
    /// it is.
    ///
    /// # Errors
    ///
    /// [`Unconfirmed`], the first of these that applies:
    ///
    /// - [`Unreadable`](Unconfirmed::Unreadable): `after` is an error. A missing position file is
    ///   accepted if nothing was written and there was no position before: the database has not
    ///   been created yet.
    /// - [`RoleChanged`](Unconfirmed::RoleChanged): `role` is not the stamp of the beginning.
    /// - [`SamePosition`](Unconfirmed::SamePosition): the position had to advance and did not.
    pub fn confirm(
        &self,
        after: Result<Position, PositionError>,
        role: impl Into<Option<RoleStamp>>,
        expectation: CommitExpectation,
    ) -> Result<Option<Position>, Unconfirmed> {
        let after = match after {
            Ok(position) => Some(position),
            Err(error) if self.may_be_absent(&error, expectation) => None,
            Err(error) => return Err(Unconfirmed::Unreadable(error.to_string())),
        };
        if role.into() != Some(self.stamp) {
            return Err(Unconfirmed::RoleChanged);
        }
        let advanced = after.filter(|_| after != self.before);
        match (expectation, after) {
            (CommitExpectation::Unchanged, _) => Ok(None),
            (CommitExpectation::Advances, Some(same)) if advanced.is_none() => {
                Err(Unconfirmed::SamePosition(same))
            }
            _ => Ok(advanced),
        }
    }

    /// Whether the database has no position because nothing has ever been committed to it.
    fn may_be_absent(&self, error: &PositionError, expectation: CommitExpectation) -> bool {
        matches!(error, PositionError::Absent(_) | PositionError::NoDatabase(_))
            && expectation == CommitExpectation::Unchanged
            && self.before.is_none()
    }
}

#[cfg(test)]
mod tests {
    use CommitExpectation::{Advances, Unchanged, Unknown};

    use super::*;
    use crate::{Checksum, MountError, Role, RoleState, Txid};

    const ALL: [CommitExpectation; 3] = [Advances, Unchanged, Unknown];

    fn stamp(role: Role, epoch: u64) -> RoleStamp {
        RoleState { role, epoch, term_start: None }.stamp()
    }

    fn at(txid: u64) -> Position {
        Position::new(Txid::new(txid), Checksum::new(txid))
    }

    fn unreadable(error: PositionError) -> Result<Option<Position>, Unconfirmed> {
        Err(Unconfirmed::Unreadable(error.to_string()))
    }

    fn absent() -> PositionError {
        PositionError::Absent("/litefs/app.db-pos".into())
    }

    fn no_database() -> PositionError {
        PositionError::NoDatabase("/litefs/app.db".into())
    }

    fn gone() -> PositionError {
        MountError::Gone("/litefs".into()).into()
    }

    /// Confirms a commit by a node that keeps its role.
    fn confirm(
        before: Option<Position>,
        after: Result<Position, PositionError>,
        expectation: CommitExpectation,
    ) -> Result<Option<Position>, Unconfirmed> {
        let role = stamp(Role::Primary, 3);
        CommitGuard::begin(role, before).confirm(after, role, expectation)
    }

    #[test]
    fn a_readable_position_confirms_what_was_expected() {
        let same = Err(Unconfirmed::SamePosition(at(6)));
        let table = [
            (Some(at(6)), at(7), [Ok(Some(at(7))), Ok(None), Ok(Some(at(7)))]),
            (Some(at(6)), at(6), [same, Ok(None), Ok(None)]),
            // A failover can move the position back. The role tells whether that is a problem.
            (Some(at(6)), at(5), [Ok(Some(at(5))), Ok(None), Ok(Some(at(5)))]),
            (None, at(1), [Ok(Some(at(1))), Ok(None), Ok(Some(at(1)))]),
        ];
        for (before, after, expected) in table {
            let results = ALL.map(|expectation| confirm(before, Ok(after), expectation));
            assert_eq!(results, expected, "{before:?} -> {after}");
        }
    }

    #[test]
    fn a_missing_position_is_accepted_only_if_nothing_was_written() {
        for error in [absent, no_database] {
            let results = ALL.map(|expectation| confirm(None, Err(error()), expectation));
            assert_eq!(results, [unreadable(error()), Ok(None), unreadable(error())]);
            for expectation in ALL {
                let result = confirm(Some(at(6)), Err(error()), expectation);
                assert_eq!(result, unreadable(error()), "{expectation:?}");
            }
        }
    }

    #[test]
    fn a_position_that_cannot_be_read_confirms_nothing() {
        for before in [None, Some(at(6))] {
            for expectation in ALL {
                let result = confirm(before, Err(gone()), expectation);
                assert_eq!(result, unreadable(gone()), "{before:?} {expectation:?}");
            }
        }
    }

    #[test]
    fn a_role_that_changed_confirms_nothing() {
        let role = stamp(Role::Primary, 3);
        let others = [
            None,
            Some(stamp(Role::Unknown, 4)),
            // Lost and regained meanwhile.
            Some(stamp(Role::Primary, 5)),
        ];
        let cases = [(Some(at(6)), at(7)), (Some(at(6)), at(6)), (None, at(1))];
        for other in others {
            for expectation in ALL {
                for (before, after) in cases {
                    let guard = CommitGuard::begin(role, before);
                    let result = guard.confirm(Ok(after), other, expectation);
                    assert_eq!(result, Err(Unconfirmed::RoleChanged), "{other:?} {expectation:?}");
                }
            }
            let result = CommitGuard::begin(role, None).confirm(Err(absent()), other, Unchanged);
            assert_eq!(result, Err(Unconfirmed::RoleChanged), "{other:?} without a position");
            let result = CommitGuard::begin(role, None).confirm(Err(gone()), other, Advances);
            assert_eq!(result, unreadable(gone()), "the position is judged first");
        }
    }

    #[test]
    fn an_unconfirmed_commit_says_why() {
        let messages = [
            (
                Unconfirmed::Unreadable(gone().to_string()),
                "the position cannot be read: the mount directory /litefs does not exist",
            ),
            (Unconfirmed::RoleChanged, "the role changed during the commit"),
            (
                Unconfirmed::SamePosition(at(6)),
                "SQLite has committed, but LiteFS's position is the same as before: \
                 0000000000000006/0000000000000006",
            ),
        ];
        for (unconfirmed, message) in messages {
            assert_eq!(unconfirmed.to_string(), message);
        }
    }
}
