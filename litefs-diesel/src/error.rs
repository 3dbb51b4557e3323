//! The errors that callers of Diesel get.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use litefs_core::Position;
use litefs_rpc::client::{CallError, Fate, ForwardError};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::wire::{DatabaseError, ProcedureFault, RequestId, ServerError};

use crate::failure::Failure;

/// Why the primary did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrimaryError {
    /// The primary was not reached, or has refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// This node is the primary, and its server has refused.
    #[error(transparent)]
    Refused(#[from] ServerError),
    /// This node is the primary, but another of its processes serves.
    #[error("this process does not serve, another one of this node does")]
    NotServing,
}

/// The handoff did not happen.
pub(crate) fn handoff_failed(error: PrimaryError) -> DieselError {
    match error {
        PrimaryError::Forward(error) => forwarded(error, None),
        PrimaryError::Refused(refusal) => called(refusal.into(), None),
        error @ PrimaryError::NotServing => Failure::HandoffFailed.error(error),
    }
}

/// The write is applied, but not enough nodes have it.
pub(crate) fn not_replicated(why: impl fmt::Display) -> DieselError {
    Failure::NotReplicated.error(format!(
        "the write is applied on the primary, but not replicated as it should be: {why}"
    ))
}

/// The message of errors after the I/O thread has ended.
pub(crate) const STOPPED: &str = "the handle's I/O thread has ended";

/// The I/O thread has ended.
pub(crate) fn stopped() -> DieselError {
    Failure::Unreachable.error(STOPPED)
}

/// A forwarded write's failure as the caller of Diesel sees it.
pub(crate) fn forwarded(error: ForwardError, id: Option<RequestId>) -> DieselError {
    match error {
        ForwardError::Call(error) => called(error, id),
        error => Failure::NoPrimary.error(error),
    }
}

/// An error of the primary's SQLite as the caller of Diesel sees it.
fn of_primary(error: DatabaseError) -> DieselError {
    match Symptom::of(&error.message) {
        Symptom::Locked | Symptom::LockRefused => locked(error),
        _ => litefs_rpc::sqlite::to_diesel(error),
    }
}

/// Another connection holds a lock.
pub(crate) fn locked(message: impl fmt::Display) -> DieselError {
    Failure::Busy
        .error(format!("{message}: another connection to the file holds it; nothing was applied"))
}

/// LiteFS does not serve this node's mount.
pub(crate) fn mount_lost() -> DieselError {
    Failure::MountLost.error(
        "LiteFS does not serve this node's mount any more, and what SQLite would read there is \
         old: retry once it is mounted again",
    )
}

/// The name of the function in an error that says that SQLite has no such function.
pub(crate) fn missing_function(error: &DieselError) -> Option<&str> {
    match error {
        DieselError::DatabaseError(_, information) => {
            information.message().strip_prefix("no such function: ")
        }
        _ => None,
    }
}

/// A function that this node has is missing on the primary.
pub(crate) fn missing_on_primary(function: &str, primary: &str) -> DieselError {
    DieselError::DatabaseError(
        DatabaseErrorKind::Unknown,
        Box::new(format!(
            "no such function: {function} on the primary, node {primary}, which runs the \
         statement: register it in LiteFsBuilder::on_connection, on every node"
        )),
    )
}

/// What stands in the hint of a conflict, before the index of the step and the primary's position.
const CONFLICT: &str = "conflict at step ";

/// The step that has another result on the primary, and the primary's position.
pub(crate) fn conflict_of_call(error: &CallError) -> Option<(usize, Option<Position>)> {
    match error {
        CallError::Refused(ServerError::Conflict { step, position, .. }) => {
            Some((*step, *position))
        }
        _ => None,
    }
}

/// The same of the error as the caller of Diesel sees it.
pub(crate) fn conflict_of(error: &DieselError) -> Option<(usize, Option<Position>)> {
    let DieselError::DatabaseError(_, information) = error else { return None };
    let (step, position) = information.hint()?.strip_prefix(CONFLICT)?.split_once(' ')?;
    Some((step.parse().ok()?, position.parse().ok()))
}

/// A failed call as the caller of Diesel sees it.
pub(crate) fn called(error: CallError, id: Option<RequestId>) -> DieselError {
    let failure = match &error {
        CallError::Unreachable { .. } => Failure::Unreachable,
        CallError::Handshake { .. } => Failure::Incompatible,
        CallError::Encoding(_) => Failure::TooLarge,
        CallError::Refused(refusal) => match refusal {
            ServerError::Database(error) => return of_primary(error.clone()),
            ServerError::NotPrimary { .. } => Failure::NoPrimary,
            ServerError::Overloaded { .. } | ServerError::TooLate | ServerError::ShuttingDown => {
                Failure::Busy
            }
            ServerError::Denied { .. } => Failure::Denied,
            ServerError::TooLarge { .. } => Failure::TooLarge,
            ServerError::SnapshotMoved { .. } | ServerError::Conflict { .. } => {
                Failure::SnapshotMoved
            }
            ServerError::SessionLost { .. } => Failure::TransactionLost,
            ServerError::Unconfirmed { .. } | ServerError::Interrupted => Failure::OutcomeUnknown,
            ServerError::Fenced => Failure::Fenced,
            ServerError::HandoffFailed { .. } => Failure::HandoffFailed,
            ServerError::NotReplicated { .. } => Failure::NotReplicated,
            ServerError::DiskFull { .. } => Failure::DiskFull,
            ServerError::Io { .. } => Failure::Io,
            ServerError::Procedure { fault, .. } => match fault {
                ProcedureFault::Panicked { .. } | ProcedureFault::EndedTransaction => {
                    Failure::ProcedureFailed
                }
                _ => Failure::NoProcedure,
            },
            _ => Failure::OutcomeUnknown,
        },
        _ => Failure::OutcomeUnknown,
    };
    if let Some((step, position)) = conflict_of_call(&error) {
        let position = position.map_or_else(String::new, |position| position.to_string());
        return failure.with_hint(error.to_string(), Some(format!("{CONFLICT}{step} {position}")));
    }
    match (error.fate(), id) {
        (Fate::Unknown, Some(id)) => {
            failure.of_write(id, format!("{error}; it may or may not be applied"))
        }
        _ => failure.error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_names_the_write() {
        let id = RequestId::new();
        let lost = CallError::Lost { address: "a:1".into(), reason: "reset".into() };
        let error = called(lost, Some(id));
        assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown));
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        assert_eq!(Failure::write_of(&error), Some(id));
        assert_eq!(Failure::write_of(&Failure::OutcomeUnknown.error("which?")), None);
    }

    #[test]
    fn m7_a_database_error_keeps_its_kind_and_message() {
        use litefs_rpc::wire::DatabaseErrorKind as Wire;
        let refusal = ServerError::Database(DatabaseError {
            kind: Wire::UniqueViolation,
            message: "taken".into(),
        });
        match called(refusal.into(), None) {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, i) => {
                assert_eq!(i.message(), "taken")
            }
            other => panic!("{other:?}"),
        }
    }
}
