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
            Autocommit, LocalReads, LocalWrites, Lost, Pending, PendingRemote, Remote, Speculating,
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
        let lazily = ControlAction::BeginLazily;
        let (local, remote) = (ControlAction::BeginLocal, ControlAction::BeginRemote(mode));
        let (here, there) = (ControlAction::RunLocal, ControlAction::RunRemote);
        let (pass, nested, record) =
            (ControlAction::Pass, ControlAction::Nested, ControlAction::Record);
        let (commit, rollback) =
            (ControlAction::Finish { commit: true }, ControlAction::Finish { commit: false });
        let (submit, discard, rerun) =
            (ControlAction::Submit, ControlAction::Discard, ControlAction::RunRecorded);
        let (lost, end) = (ControlAction::Lost, ControlAction::CommitLost);
        let (yes, no, any) = (&[true][..], &[false][..], &[false, true][..]);
        // One row for each phase, on a node that can write or not, releasing the first savepoint or
        // not.
        #[rustfmt::skip]
        let table = [
            //                       BEGIN   IMMEDIATE COMMIT  ROLLBACK SAVEPOINT RELEASE ROLL. TO
            (Autocommit,  no,  any, [lazily, remote,   pass,   pass,     lazily,  pass,   pass]),
            (Autocommit,  yes, any, [local,  local,    pass,   pass,     local,   pass,   pass]),
            (Pending,     any, any, [nested, nested,   record, record,   record,  record, record]),
            (LocalReads,  any, any, [nested, nested,   here,   here,     here,    here,   here]),
            (PendingRemote, any, any, [nested, nested, record, record, record, record, record]),
            (Speculating, any, no,  [nested, nested,   submit, discard,  rerun,   rerun,  rerun]),
            (Speculating, any, yes, [nested, nested,   submit, discard,  rerun,   submit, rerun]),
            (LocalWrites, any, any, [nested, nested,   here,   here,     here,    here,   here]),
            (Remote,      any, no,  [nested, nested,   commit, rollback, there,   there,  there]),
            (Remote,      any, yes, [nested, nested,   commit, rollback, there,   commit, there]),
            (Lost,        any, any, [lost,   lost,     end,    record,   lost,    lost,   record]),
        ];
        let mut cases = 0;
        for (phase, writable, ends, row) in table {
            for (&writable, &ends) in writable.iter().flat_map(|w| ends.iter().map(move |e| (w, e)))
            {
                for (control, expected) in controls.iter().zip(row) {
                    let actual = control_action(phase, control, writable, ends);
                    assert_eq!(actual, expected, "{phase:?} {control:?} {writable} {ends}");
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 8 * 2 * 2 * controls.len());
    }
}
