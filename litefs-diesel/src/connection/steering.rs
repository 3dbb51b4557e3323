//! What a statement that steers the transaction comes to: a total, pure function.

use litefs_rpc::wire::BeginMode;

use super::destination::Phase;
use crate::access::Control;

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steering {
    /// Nothing is open, and this opens nothing: SQLite says so in its own words.
    Pass,
    /// A transaction begins, and nothing is said to anybody until a statement runs in it.
    BeginLazily,
    /// A transaction begins on this node's file.
    BeginHere,
    /// A transaction begins on the primary.
    BeginThere(BeginMode),
    /// BEGIN within a transaction.
    Nested,
    /// Nothing has run, or nothing is left: it is noted, and that is all.
    Note,
    /// It runs on this node's file.
    Here,
    /// It runs in the transaction that is open on the primary.
    There,
    /// The transaction on the primary ends.
    Finish {
        /// With COMMIT, or else with ROLLBACK.
        commit: bool,
    },
    /// The transaction is gone, and its COMMIT is the last that can be said of it.
    CommitLost,
    /// The transaction is gone: only the way out is open.
    Lost,
}

/// `writable`: this node's own file takes writes. `ends`: `control` releases the savepoint that
/// began the transaction.
pub(super) fn steering(phase: Phase, control: &Control, writable: bool, ends: bool) -> Steering {
    use Control::{Begin, Commit, Release, Rollback, RollbackTo, Savepoint};
    match (phase, control) {
        (Phase::Autocommit, Begin(_) | Savepoint(_)) if writable => Steering::BeginHere,
        (Phase::Autocommit, Begin(Some(mode))) => Steering::BeginThere(*mode),
        (Phase::Autocommit, Begin(None) | Savepoint(_)) => Steering::BeginLazily,
        (Phase::Autocommit, Commit | Rollback | Release(_) | RollbackTo(_)) => Steering::Pass,
        // Diesel rolls back to a savepoint on the way to the real rollback.
        (Phase::Lost, Rollback | RollbackTo(_)) => Steering::Note,
        (Phase::Lost, Commit) => Steering::CommitLost,
        (Phase::Lost, Begin(_) | Savepoint(_) | Release(_)) => Steering::Lost,
        // Under `query_only` SQLite would first complain about the lock.
        (_, Begin(_)) => Steering::Nested,
        (Phase::Pending, _) => Steering::Note,
        (Phase::LocalReads | Phase::LocalWrites, _) => Steering::Here,
        (Phase::Remote, Commit) => Steering::Finish { commit: true },
        (Phase::Remote, Release(_)) if ends => Steering::Finish { commit: true },
        (Phase::Remote, Rollback) => Steering::Finish { commit: false },
        (Phase::Remote, Savepoint(_) | Release(_) | RollbackTo(_)) => Steering::There,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_answer() {
        use Phase::{Autocommit, LocalReads, LocalWrites, Lost, Pending, Remote};
        let name = || "s".to_owned();
        let mode = BeginMode::Immediate;
        let controls = [
            Control::Begin(None),
            Control::Begin(Some(mode)),
            Control::Commit,
            Control::Rollback,
            Control::Savepoint(name()),
            Control::Release(name()),
            Control::RollbackTo(name()),
        ];
        let (commit, rollback) =
            (Steering::Finish { commit: true }, Steering::Finish { commit: false });
        use Steering::{
            BeginHere, BeginLazily, BeginThere, CommitLost, Here, Nested, Note, Pass, There,
        };
        let lost = Steering::Lost;
        // One row for each phase, on a node that can write or not, releasing the first savepoint or
        // not.
        #[rustfmt::skip]
        let table = [
            //                          BEGIN        BEGIN IMMEDIATE   COMMIT      ROLLBACK  SAVEPOINT    RELEASE ROLLBACK TO
            (Autocommit,  false, false, [BeginLazily, BeginThere(mode), Pass,       Pass,     BeginLazily, Pass,   Pass]),
            (Autocommit,  false, true,  [BeginLazily, BeginThere(mode), Pass,       Pass,     BeginLazily, Pass,   Pass]),
            (Autocommit,  true,  false, [BeginHere,   BeginHere,        Pass,       Pass,     BeginHere,   Pass,   Pass]),
            (Autocommit,  true,  true,  [BeginHere,   BeginHere,        Pass,       Pass,     BeginHere,   Pass,   Pass]),
            (Pending,     false, false, [Nested,      Nested,           Note,       Note,     Note,        Note,   Note]),
            (Pending,     false, true,  [Nested,      Nested,           Note,       Note,     Note,        Note,   Note]),
            (Pending,     true,  false, [Nested,      Nested,           Note,       Note,     Note,        Note,   Note]),
            (Pending,     true,  true,  [Nested,      Nested,           Note,       Note,     Note,        Note,   Note]),
            (LocalReads,  false, false, [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalReads,  false, true,  [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalReads,  true,  false, [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalReads,  true,  true,  [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalWrites, false, false, [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalWrites, false, true,  [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalWrites, true,  false, [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (LocalWrites, true,  true,  [Nested,      Nested,           Here,       Here,     Here,        Here,   Here]),
            (Remote,      false, false, [Nested,      Nested,           commit,     rollback, There,       There,  There]),
            (Remote,      false, true,  [Nested,      Nested,           commit,     rollback, There,       commit, There]),
            (Remote,      true,  false, [Nested,      Nested,           commit,     rollback, There,       There,  There]),
            (Remote,      true,  true,  [Nested,      Nested,           commit,     rollback, There,       commit, There]),
            (Lost,        false, false, [lost,        lost,             CommitLost, Note,     lost,        lost,   Note]),
            (Lost,        false, true,  [lost,        lost,             CommitLost, Note,     lost,        lost,   Note]),
            (Lost,        true,  false, [lost,        lost,             CommitLost, Note,     lost,        lost,   Note]),
            (Lost,        true,  true,  [lost,        lost,             CommitLost, Note,     lost,        lost,   Note]),
        ];
        for (phase, writable, ends, row) in table {
            for (control, expected) in controls.iter().zip(row) {
                let actual = steering(phase, control, writable, ends);
                assert_eq!(actual, expected, "{phase:?} {control:?} {writable} {ends}");
            }
        }
    }
}
