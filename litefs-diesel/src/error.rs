//! Failures between the nodes, inside Diesel's error type.

use std::fmt;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};
use litefs_core::Position;
use litefs_rpc::client::{CallError, Fate, ForwardError};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::wire::{DatabaseError, RequestId, ServerError};

/// What went wrong between this node and the primary, told apart by what the caller may do about
/// it.
///
/// Errors of SQL (constraints, syntax, missing tables) are not here: they arrive as the same
/// [`diesel::result::Error`] that the primary's SQLite gave. All others travel inside Diesel's
/// error type as well; [`Failure::of`] finds them there:
///
/// ```
/// # fn handle(error: diesel::result::Error) {
/// match litefs_diesel::Failure::of(&error) {
///     Some(failure) if failure.may_retry() => { /* nothing was applied: run it again */ }
///     Some(litefs_diesel::Failure::OutcomeUnknown) => { /* look before you run it again */ }
///     _ => { /* an error of the statement itself */ }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// No primary was known for as long as `primary_timeout`. Nothing was applied.
    NoPrimary,
    /// The primary could not be reached in time. Nothing was applied.
    Unreachable,
    /// The primary refused this node: wrong secret, another database, another protocol version.
    /// Nothing was applied, and trying again will not help.
    Incompatible,
    /// The primary has too much to do. Nothing was applied.
    Busy,
    /// The answer was lost or the commit could not be proven, and the primary could not be asked in
    /// time: the write may or may not be applied. [`Failure::write_of`] names it,
    /// [`LiteFs::outcome`](crate::LiteFs::outcome) settles it.
    OutcomeUnknown,
    /// The write is applied, once, but the rows it returned are lost: they were too many to be kept
    /// for a second answer.
    RowsLost,
    /// Somebody has asked for the outcome of this write before it arrived, and was told that it is
    /// not applied. It is not.
    Fenced,
    /// The primary's place was not given to another node; it is where it was.
    HandoffFailed,
    /// The write is applied on the primary, once, but not enough replicas have it in time
    /// ([`Durability`](crate::Durability)): should the primary die now, it may be lost.
    NotReplicated,
    /// The statement cannot run on the primary at all, for example ATTACH. Nothing was applied.
    Denied,
    /// A size limit was exceeded. Nothing was applied.
    TooLarge,
    /// The router refused the statement. Nothing was applied.
    Rejected,
    /// The database moved on between a transaction's reads and its first write. Nothing was
    /// applied: run the transaction again.
    SnapshotMoved,
    /// The transaction is gone: a time limit, a lost connection, the end of the node's primacy.
    /// Nothing was applied.
    TransactionLost,
    /// This node did not catch up in time and the policy is to fail rather than to read old data.
    Behind,
    /// This node's copy of the database has not the schema yet: a migration has not arrived here
    /// within `forward_timeout` (it is applied on the primary; running the migrations again does
    /// nothing but wait), or a statement names what the copy does not have while the primary is
    /// ahead of it (nothing was applied).
    SchemaSkew,
    /// LiteFS was mounted again since the connection was opened, whose file belongs to the mount
    /// before. Nothing was applied. Open another connection; a pool does so by itself.
    Remounted,
    /// LiteFS does not serve this node's mount any more: what SQLite would read there is old.
    /// Nothing was applied. Retry once LiteFS is mounted again.
    MountLost,
    /// The disk of the node that ran the statement is full. Nothing was applied. A retry succeeds
    /// once there is room.
    DiskFull,
    /// SQLite could not read or write the database on the node that ran the statement, although
    /// that node's mount is served and its role has not changed: its disk may be full or broken.
    /// Nothing was applied.
    Io,
    /// The primary did something that the protocol does not allow.
    Protocol,
}

const CODES: [(Failure, &str); 21] = [
    (Failure::NoPrimary, "litefs: no primary"),
    (Failure::Unreachable, "litefs: unreachable"),
    (Failure::Incompatible, "litefs: incompatible"),
    (Failure::Busy, "litefs: busy"),
    (Failure::OutcomeUnknown, "litefs: outcome unknown"),
    (Failure::RowsLost, "litefs: rows lost"),
    (Failure::Fenced, "litefs: given up"),
    (Failure::HandoffFailed, "litefs: not handed over"),
    (Failure::NotReplicated, "litefs: not replicated"),
    (Failure::Denied, "litefs: denied"),
    (Failure::TooLarge, "litefs: too large"),
    (Failure::Rejected, "litefs: rejected"),
    (Failure::SnapshotMoved, "litefs: snapshot moved"),
    (Failure::TransactionLost, "litefs: transaction lost"),
    (Failure::Behind, "litefs: behind"),
    (Failure::SchemaSkew, "litefs: schema skew"),
    (Failure::Remounted, "litefs: remounted"),
    (Failure::MountLost, "litefs: mount lost"),
    (Failure::DiskFull, "litefs: disk full"),
    (Failure::Io, "litefs: i/o error"),
    (Failure::Protocol, "litefs: protocol"),
];

impl Failure {
    /// The failure inside a Diesel error, if it is one of ours.
    #[must_use]
    pub fn of(error: &DieselError) -> Option<Self> {
        let DieselError::DatabaseError(_, information) = error else { return None };
        let code = information.details()?;
        CODES.iter().find(|(_, known)| *known == code).map(|(failure, _)| *failure)
    }

    /// Whether the same call may well succeed later and can be made again: nothing was applied, or,
    /// for a migration ([`SchemaSkew`](Self::SchemaSkew)), what was applied is not applied again.
    #[must_use]
    pub fn may_retry(self) -> bool {
        use Failure::{
            Behind, Busy, MountLost, NoPrimary, SchemaSkew, SnapshotMoved, TransactionLost,
            Unreachable,
        };
        matches!(
            self,
            NoPrimary
                | Unreachable
                | Busy
                | SnapshotMoved
                | TransactionLost
                | Behind
                | SchemaSkew
                | MountLost
        )
    }

    /// What became of the work that failed.
    #[must_use]
    pub fn fate(self) -> Fate {
        use Failure::{
            Incompatible, NoPrimary, NotReplicated, OutcomeUnknown, Rejected, Remounted, RowsLost,
            SchemaSkew, TooLarge, Unreachable,
        };
        match self {
            NoPrimary | Unreachable | Incompatible | TooLarge | Rejected | Remounted => {
                Fate::NotSent
            }
            // Of a statement nothing is applied, of a migration all.
            OutcomeUnknown | RowsLost | NotReplicated | SchemaSkew => Fate::Unknown,
            _ => Fate::NotApplied,
        }
    }

    /// The write that an error is about, where its outcome is unknown.
    #[must_use]
    pub fn write_of(error: &DieselError) -> Option<RequestId> {
        let DieselError::DatabaseError(_, information) = error else { return None };
        information.hint()?.strip_prefix(WRITE)?.parse().ok()
    }

    fn code(self) -> &'static str {
        CODES.iter().find(|(failure, _)| *failure == self).map_or("litefs", |(_, code)| code)
    }

    /// Diesel's nearest kind, for callers that match on it.
    fn kind(self) -> DatabaseErrorKind {
        match self {
            Failure::SnapshotMoved => DatabaseErrorKind::SerializationFailure,
            Failure::OutcomeUnknown
            | Failure::RowsLost
            | Failure::NotReplicated
            | Failure::Remounted
            | Failure::TransactionLost => DatabaseErrorKind::ClosedConnection,
            Failure::Rejected => DatabaseErrorKind::ReadOnlyTransaction,
            Failure::Denied
            | Failure::Behind
            | Failure::SchemaSkew
            | Failure::MountLost
            | Failure::DiskFull
            | Failure::Io
            | Failure::Protocol => DatabaseErrorKind::Unknown,
            Failure::NoPrimary
            | Failure::Unreachable
            | Failure::Incompatible
            | Failure::Busy
            | Failure::Fenced
            | Failure::HandoffFailed
            | Failure::TooLarge => DatabaseErrorKind::UnableToSendCommand,
        }
    }

    pub(crate) fn error(self, message: impl fmt::Display) -> DieselError {
        self.with_hint(message.to_string(), None)
    }

    /// The same, naming the write.
    pub(crate) fn of_write(self, id: RequestId, message: impl fmt::Display) -> DieselError {
        self.with_hint(format!("{message} (write {id})"), Some(format!("{WRITE}{id}")))
    }

    fn with_hint(self, message: String, hint: Option<String>) -> DieselError {
        let information = Information { message, code: self.code(), hint };
        DieselError::DatabaseError(self.kind(), Box::new(information))
    }
}

/// A failure on its way through Diesel's error type; `details` carries the code.
#[derive(Debug)]
struct Information {
    message: String,
    code: &'static str,
    hint: Option<String>,
}

/// What stands before a write's id in the hint.
const WRITE: &str = "write ";

impl DatabaseErrorInformation for Information {
    fn message(&self) -> &str {
        &self.message
    }
    fn details(&self) -> Option<&str> {
        Some(self.code)
    }
    fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    fn table_name(&self) -> Option<&str> {
        None
    }
    fn column_name(&self) -> Option<&str> {
        None
    }
    fn constraint_name(&self) -> Option<&str> {
        None
    }
    fn statement_position(&self) -> Option<i32> {
        None
    }
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

/// SQLite's words for a lock that another connection holds.
pub(crate) fn locked(message: impl fmt::Display) -> DieselError {
    Failure::Busy
        .error(format!("{message}: another connection to the file holds it; nothing was applied"))
}

/// The mount of this node is gone.
pub(crate) fn mount_lost() -> DieselError {
    Failure::MountLost.error(
        "LiteFS does not serve this node's mount any more, and what SQLite would read there is \
         old: retry once it is mounted again",
    )
}

/// The function that SQLite misses.
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
    fn every_failure_is_found_again_inside_diesels_error() {
        for (failure, _) in CODES {
            assert_eq!(Failure::of(&failure.error("why")), Some(failure));
        }
        assert_eq!(Failure::of(&DieselError::NotFound), None);
        let plain =
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new("x".to_string()));
        assert_eq!(Failure::of(&plain), None);
    }

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
