//! The kinds of errors, inside Diesel's error type.

use std::fmt;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};
use litefs_rpc::client::Fate;
use litefs_rpc::wire::RequestId;

/// The kind of an error of this library, as [`std::io::ErrorKind`] is the kind of an I/O error.
/// Each kind says what a caller may do.
///
/// Diesel's traits fix the error type, so these errors are [`diesel::result::Error`]s too:
/// `DatabaseError` with the [`DatabaseErrorKind`] that is nearest.
/// [`failure`](DieselErrorExt::failure), or [`Failure::of`], returns the kind. Errors of SQL
/// (constraints, syntax, missing tables) have none: they are the errors of the SQLite that ran the
/// statement, as without this library.
///
/// ```
/// use litefs_diesel::{DieselErrorExt, Failure};
///
/// # fn handle(error: diesel::result::Error) {
/// match error.failure() {
///     Some(failure) if failure.may_retry() => { /* nothing was applied: run it again */ }
///     Some(Failure::OutcomeUnknown) => { /* ask for the outcome before you run it again */ }
///     Some(failure) => println!("litefs: {failure}"),
///     None => { /* an error of the statement itself */ }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The answer was lost or the commit could not be confirmed, and the primary could not be asked
    /// in time: the write may or may not be applied. [`Failure::write_of`] returns its id,
    /// [`LiteFs::outcome`](crate::LiteFs::outcome) asks for its outcome.
    OutcomeUnknown,
    /// The write is applied, once, but the rows or the result that it returned are lost: they were
    /// too large to be stored for a second answer.
    RowsLost,
    /// The outcome of this write was asked for before the write arrived. Its id was fenced then.
    /// Nothing was applied.
    Fenced,
    /// The handoff did not happen. The primary is the same node as before.
    HandoffFailed,
    /// The write is applied on the primary, once, but not enough replicas have it in time
    /// ([`Durability`](crate::Durability)). It may be lost if the primary fails now.
    NotReplicated,
    /// The statement cannot run on the primary at all, for example ATTACH. Nothing was applied.
    Denied,
    /// A size limit was exceeded. Nothing was applied.
    TooLarge,
    /// The router refused the statement. Nothing was applied.
    Rejected,
    /// Another transaction has changed something that this one has seen: rows, a count of changed
    /// rows, an error. The message names the statement. On the primary's own file: another
    /// connection has written since the transaction read, whatever it wrote. Nothing was applied:
    /// run the transaction again, as
    /// [`transaction_with_retry`](crate::LiteFsConnection::transaction_with_retry) does.
    SnapshotMoved,
    /// The transaction is lost: a time limit, a lost connection, or a change of primary. Nothing
    /// was applied.
    TransactionLost,
    /// This node did not catch up in time and the policy is to fail rather than to read old data.
    Behind,
    /// This node's copy of the database does not have the schema yet. Either a migration has not
    /// been replicated within `forward_timeout`; it is applied on the primary, and running the
    /// migrations again only waits. Or a statement names what the copy does not have while the
    /// primary is ahead of it; nothing was applied.
    SchemaSkew,
    /// LiteFS was mounted again since the connection was opened. The connection's file belongs to
    /// the former mount. Nothing was applied. Open another connection; a pool does so by itself.
    Remounted,
    /// LiteFS does not serve this node's mount any more, so SQLite would read old data. Nothing was
    /// applied. Retry once LiteFS is mounted again.
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
    /// The primary has no such procedure, or has it with other types or another version
    /// ([`Procedure`](crate::Procedure)): during a rolling deploy, for example. Nothing was
    /// applied.
    NoProcedure,
    /// A procedure panicked on the primary, or has ended its own transaction. Nothing was applied.
    ProcedureFailed,
}

/// The codes, by which a failure is recognized inside Diesel's error.
const CODES: [(Failure, &str); 23] = [
    (Failure::NoPrimary, "litefs: no primary"),
    (Failure::Unreachable, "litefs: unreachable"),
    (Failure::Incompatible, "litefs: incompatible"),
    (Failure::Busy, "litefs: busy"),
    (Failure::OutcomeUnknown, "litefs: outcome unknown"),
    (Failure::RowsLost, "litefs: rows lost"),
    (Failure::Fenced, "litefs: fenced"),
    (Failure::HandoffFailed, "litefs: handoff failed"),
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
    (Failure::NoProcedure, "litefs: no procedure"),
    (Failure::ProcedureFailed, "litefs: procedure failed"),
];

impl Failure {
    /// The kind of a Diesel error. `None`: an error of SQL or of Diesel itself.
    #[must_use]
    pub fn of(error: &DieselError) -> Option<Self> {
        let DieselError::DatabaseError(_, information) = error else { return None };
        let code = information.details()?;
        CODES.iter().find(|(_, known)| *known == code).map(|(failure, _)| *failure)
    }

    /// Whether the same call can be made again and may succeed then: nothing was applied, or, for a
    /// migration ([`SchemaSkew`](Self::SchemaSkew)), it is not applied a second time.
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
            // A statement is not applied, a migration is.
            OutcomeUnknown | RowsLost | NotReplicated | SchemaSkew => Fate::Unknown,
            _ => Fate::NotApplied,
        }
    }

    /// The id of the write whose outcome is unknown, from a Diesel error.
    #[must_use]
    pub fn write_of(error: &DieselError) -> Option<RequestId> {
        let DieselError::DatabaseError(_, information) = error else { return None };
        information.hint()?.strip_prefix(WRITE)?.parse().ok()
    }

    fn code(self) -> &'static str {
        CODES.iter().find(|(failure, _)| *failure == self).map_or("litefs", |(_, code)| code)
    }

    /// Diesel's nearest kind, for callers that match on it.
    fn diesel_kind(self) -> DatabaseErrorKind {
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
            | Failure::Protocol
            | Failure::NoProcedure
            | Failure::ProcedureFailed => DatabaseErrorKind::Unknown,
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

    pub(crate) fn with_hint(self, message: String, hint: Option<String>) -> DieselError {
        let information = Information { message, code: self.code(), hint };
        DieselError::DatabaseError(self.diesel_kind(), Box::new(information))
    }
}

/// The kind of an error, in brief.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code().trim_start_matches("litefs: "))
    }
}

/// Accessors for what this library puts into [`diesel::result::Error`].
pub trait DieselErrorExt: sealed::Sealed {
    /// The [`Failure`], as [`std::io::Error::kind`] is the kind of an I/O error. `None`: an error
    /// of SQL or of Diesel itself.
    fn failure(&self) -> Option<Failure>;

    /// The id of the write whose outcome is unknown.
    fn write_id(&self) -> Option<RequestId>;
}

impl DieselErrorExt for DieselError {
    fn failure(&self) -> Option<Failure> {
        Failure::of(self)
    }

    fn write_id(&self) -> Option<RequestId> {
        Failure::write_of(self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for diesel::result::Error {}
}

/// A failure inside Diesel's error type. `details` contains the code.
#[derive(Debug)]
struct Information {
    message: String,
    code: &'static str,
    hint: Option<String>,
}

/// The text before a write's id in the hint.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_found_again_inside_diesels_error() {
        for (failure, code) in CODES {
            let error = failure.error("why");
            assert_eq!(error.failure(), Some(failure));
            assert_eq!(format!("litefs: {failure}"), code);
        }
        assert_eq!(Failure::of(&DieselError::NotFound), None);
        let plain =
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new("x".to_string()));
        assert_eq!(Failure::of(&plain), None);
    }
}
