//! What BEGIN, COMMIT, ROLLBACK and savepoints do in each phase: a total, pure function.

use litefs_rpc::wire::BeginMode;

use super::phase::Phase;
use crate::access::Control;

/// What a transaction control statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum ControlAction {
    /// No transaction is open, and the statement opens none: SQLite reports the error.
    Pass,
    /// A transaction begins. Nothing is sent until a statement runs in it.
    BeginLazily,
    /// A transaction begins on this node's file.
    BeginLocal,
    /// A transaction begins on the primary.
    BeginRemote(BeginMode),
    /// BEGIN within a transaction.
    Nested,
    /// No statement has run, or the transaction is lost: only the state changes.
    Record,
    /// It runs on this node's file.
    RunLocal,
    /// It runs in the transaction that is open on the primary.
    RunRemote,
    /// The transaction on the primary ends.
    Finish {
        /// With COMMIT, or else with ROLLBACK.
        commit: bool,
    },
    /// The recorded transaction is taken back here and sent to the primary, which commits it.
    Submit,
    /// The recorded transaction is taken back here, and that is all.
    Discard,
    /// It runs on this replica's snapshot and is recorded.
    RunRecorded,
    /// The transaction is lost: COMMIT reports that and ends it.
    CommitLost,
    /// The transaction is lost: the statement fails.
    Lost,
}

/// `writable`: this node's own file takes writes. `ends`: `control` releases the savepoint that
/// began the transaction.
pub(in crate::connection) fn control_action(
    phase: Phase,
    control: &Control,
    writable: bool,
    ends: bool,
) -> ControlAction {
    use Control::{Begin, Commit, Release, Rollback, RollbackTo, Savepoint};
    match (phase, control) {
        (Phase::Autocommit, Begin(_) | Savepoint(_)) if writable => ControlAction::BeginLocal,
        (Phase::Autocommit, Begin(Some(mode))) => ControlAction::BeginRemote(*mode),
        (Phase::Autocommit, Begin(None) | Savepoint(_)) => ControlAction::BeginLazily,
        (Phase::Autocommit, Commit | Rollback | Release(_) | RollbackTo(_)) => ControlAction::Pass,
        // Diesel rolls back to a savepoint on the way to the real rollback.
        (Phase::Lost, Rollback | RollbackTo(_)) => ControlAction::Record,
        (Phase::Lost, Commit) => ControlAction::CommitLost,
        (Phase::Lost, Begin(_) | Savepoint(_) | Release(_)) => ControlAction::Lost,
        // Under `query_only` SQLite would first complain about the lock.
        (_, Begin(_)) => ControlAction::Nested,
        (Phase::Pending | Phase::PendingRemote, _) => ControlAction::Record,
        (Phase::Speculating, Commit) => ControlAction::Submit,
        (Phase::Speculating, Release(_)) if ends => ControlAction::Submit,
        (Phase::Speculating, Rollback) => ControlAction::Discard,
        (Phase::Speculating, Savepoint(_) | Release(_) | RollbackTo(_)) => {
            ControlAction::RunRecorded
        }
        (Phase::LocalReads | Phase::LocalWrites, _) => ControlAction::RunLocal,
        (Phase::Remote, Commit) => ControlAction::Finish { commit: true },
        (Phase::Remote, Release(_)) if ends => ControlAction::Finish { commit: true },
        (Phase::Remote, Rollback) => ControlAction::Finish { commit: false },
        (Phase::Remote, Savepoint(_) | Release(_) | RollbackTo(_)) => ControlAction::RunRemote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_answer() {
        use Phase::{
            Autocommit, LocalReads as Reads, LocalWrites as Writes, Lost, Pending, Remote,
        };
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
        let (commit, undo) =
            (ControlAction::Finish { commit: true }, ControlAction::Finish { commit: false });
        use ControlAction::{
            BeginLazily, BeginLocal, BeginRemote, CommitLost, Nested, Pass, Record, RunLocal,
            RunRemote,
        };
        let (lazily, begin, direct) = (BeginLazily, BeginLocal, BeginRemote(mode));
        let (local, remote) = (RunLocal, RunRemote);
        let no_commit = CommitLost;
        let lost = ControlAction::Lost;
        // One row for each phase, on a node that can write or not, releasing the first savepoint or
        // not.
        #[rustfmt::skip]
        let table = [
            // phase, writable, ends, [BEGIN, BEGIN IMMEDIATE, COMMIT, ROLLBACK, SAVEPOINT, RELEASE,
            // ROLLBACK TO]
            (Autocommit, false, false, [lazily, direct, Pass,      Pass,   lazily, Pass,   Pass]),
            (Autocommit, false, true,  [lazily, direct, Pass,      Pass,   lazily, Pass,   Pass]),
            (Autocommit, true,  false, [begin,  begin,  Pass,      Pass,   begin,  Pass,   Pass]),
            (Autocommit, true,  true,  [begin,  begin,  Pass,      Pass,   begin,  Pass,   Pass]),
            (Pending,    false, false, [Nested, Nested, Record,    Record, Record, Record, Record]),
            (Pending,    false, true,  [Nested, Nested, Record,    Record, Record, Record, Record]),
            (Pending,    true,  false, [Nested, Nested, Record,    Record, Record, Record, Record]),
            (Pending,    true,  true,  [Nested, Nested, Record,    Record, Record, Record, Record]),
            (Reads,      false, false, [Nested, Nested, local,     local,  local,  local,  local]),
            (Reads,      false, true,  [Nested, Nested, local,     local,  local,  local,  local]),
            (Reads,      true,  false, [Nested, Nested, local,     local,  local,  local,  local]),
            (Reads,      true,  true,  [Nested, Nested, local,     local,  local,  local,  local]),
            (Writes,     false, false, [Nested, Nested, local,     local,  local,  local,  local]),
            (Writes,     false, true,  [Nested, Nested, local,     local,  local,  local,  local]),
            (Writes,     true,  false, [Nested, Nested, local,     local,  local,  local,  local]),
            (Writes,     true,  true,  [Nested, Nested, local,     local,  local,  local,  local]),
            (Remote,     false, false, [Nested, Nested, commit,    undo,   remote, remote, remote]),
            (Remote,     false, true,  [Nested, Nested, commit,    undo,   remote, commit, remote]),
            (Remote,     true,  false, [Nested, Nested, commit,    undo,   remote, remote, remote]),
            (Remote,     true,  true,  [Nested, Nested, commit,    undo,   remote, commit, remote]),
            (Lost,       false, false, [lost,   lost,   no_commit, Record, lost,   lost,   Record]),
            (Lost,       false, true,  [lost,   lost,   no_commit, Record, lost,   lost,   Record]),
            (Lost,       true,  false, [lost,   lost,   no_commit, Record, lost,   lost,   Record]),
            (Lost,       true,  true,  [lost,   lost,   no_commit, Record, lost,   lost,   Record]),
        ];
        for (phase, writable, ends, row) in table {
            for (control, expected) in controls.iter().zip(row) {
                let actual = control_action(phase, control, writable, ends);
                assert_eq!(actual, expected, "{phase:?} {control:?} {writable} {ends}");
            }
        }
    }
}
