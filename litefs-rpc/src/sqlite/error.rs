//! Errors of SQLite, between Diesel and the wire.

use diesel::result::{DatabaseErrorKind as DieselKind, Error};

use crate::wire::{DatabaseError, DatabaseErrorKind, ServerError};

/// Converts a Diesel error of the primary for the node that sent the request.
pub fn from_diesel(error: Error) -> ServerError {
    let (kind, message) = match error {
        Error::DatabaseError(_, information) if is_unusable(information.message()) => {
            return denied(information.message().to_owned());
        }
        Error::DatabaseError(kind, information) => {
            (from_kind(&kind), information.message().to_owned())
        }
        Error::SerializationError(error) => (DatabaseErrorKind::Serialization, error.to_string()),
        Error::DeserializationError(error) => {
            (DatabaseErrorKind::Deserialization, error.to_string())
        }
        other => (DatabaseErrorKind::Other, other.to_string()),
    };
    ServerError::Database(DatabaseError { kind, message })
}

/// Converts an error of a procedure for the node that called it. Its kinds are more than those of
/// SQLite.
pub(super) fn from_procedure(error: Error) -> ServerError {
    use DatabaseErrorKind as Kind;
    let message = error.to_string();
    let kind = match &error {
        Error::NotFound => Kind::NotFound,
        Error::RollbackTransaction => Kind::RollbackTransaction,
        Error::AlreadyInTransaction => Kind::AlreadyInTransaction,
        Error::NotInTransaction => Kind::NotInTransaction,
        Error::BrokenTransactionManager => Kind::BrokenTransactionManager,
        Error::QueryBuilderError(_) => Kind::QueryBuilder,
        Error::DatabaseError(DieselKind::UnableToSendCommand, _) => Kind::UnableToSendCommand,
        Error::DatabaseError(DieselKind::SerializationFailure, _) => Kind::SerializationFailure,
        Error::DatabaseError(DieselKind::ReadOnlyTransaction, _) => Kind::ReadOnlyTransaction,
        Error::DatabaseError(DieselKind::RestrictViolation, _) => Kind::RestrictViolation,
        Error::DatabaseError(DieselKind::ExclusionViolation, _) => Kind::ExclusionViolation,
        Error::DatabaseError(DieselKind::ClosedConnection, _) => Kind::ClosedConnection,
        _ => return from_diesel(error),
    };
    ServerError::Database(DatabaseError { kind, message })
}

/// How the error begins that the table of outcomes cannot be used.
pub(super) const UNUSABLE: &str = "the table _litefs_outcomes cannot keep what becomes of a write";

fn is_unusable(message: &str) -> bool {
    message.starts_with(UNUSABLE)
}

/// An error that is not one of SQLite's own, with this message.
pub(super) fn other(message: String) -> ServerError {
    ServerError::Database(DatabaseError { kind: DatabaseErrorKind::Other, message })
}

pub(super) fn denied(what: String) -> ServerError {
    ServerError::Denied { what }
}

/// Whether an error of a statement that only concerns `table`, which this library made, says that
/// another table or view is in its place: other columns, no key, or a constraint of another owner.
#[must_use]
pub fn is_misshapen(error: &Error, table: &str) -> bool {
    use DieselKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
    // SQLite's errors that do not name the table begin like this.
    const NAMELESS: [&str; 5] = [
        "no such column",
        "ON CONFLICT clause",
        "cannot UPSERT",
        "datatype mismatch",
        "cannot store",
    ];
    let Error::DatabaseError(kind, information) = error else { return false };
    let message = information.message();
    matches!(kind, CheckViolation | ForeignKeyViolation | NotNullViolation | UniqueViolation)
        || message.contains(table)
        || NAMELESS.iter().any(|part| message.starts_with(part))
}

/// The same Diesel error that the statement would have given on the primary.
#[must_use]
pub fn to_diesel(error: DatabaseError) -> Error {
    let message = error.message;
    let kind = match error.kind {
        DatabaseErrorKind::UniqueViolation => DieselKind::UniqueViolation,
        DatabaseErrorKind::ForeignKeyViolation => DieselKind::ForeignKeyViolation,
        DatabaseErrorKind::NotNullViolation => DieselKind::NotNullViolation,
        DatabaseErrorKind::CheckViolation => DieselKind::CheckViolation,
        DatabaseErrorKind::Other => DieselKind::Unknown,
        DatabaseErrorKind::Serialization => return Error::SerializationError(message.into()),
        DatabaseErrorKind::Deserialization => return Error::DeserializationError(message.into()),
        DatabaseErrorKind::NotFound => return Error::NotFound,
        DatabaseErrorKind::RollbackTransaction => return Error::RollbackTransaction,
        DatabaseErrorKind::AlreadyInTransaction => return Error::AlreadyInTransaction,
        DatabaseErrorKind::NotInTransaction => return Error::NotInTransaction,
        DatabaseErrorKind::BrokenTransactionManager => return Error::BrokenTransactionManager,
        DatabaseErrorKind::QueryBuilder => return Error::QueryBuilderError(message.into()),
        DatabaseErrorKind::UnableToSendCommand => DieselKind::UnableToSendCommand,
        DatabaseErrorKind::SerializationFailure => DieselKind::SerializationFailure,
        DatabaseErrorKind::ReadOnlyTransaction => DieselKind::ReadOnlyTransaction,
        DatabaseErrorKind::RestrictViolation => DieselKind::RestrictViolation,
        DatabaseErrorKind::ExclusionViolation => DieselKind::ExclusionViolation,
        DatabaseErrorKind::ClosedConnection => DieselKind::ClosedConnection,
    };
    Error::DatabaseError(kind, Box::new(message))
}

fn from_kind(kind: &DieselKind) -> DatabaseErrorKind {
    match kind {
        DieselKind::UniqueViolation => DatabaseErrorKind::UniqueViolation,
        DieselKind::ForeignKeyViolation => DatabaseErrorKind::ForeignKeyViolation,
        DieselKind::NotNullViolation => DatabaseErrorKind::NotNullViolation,
        DieselKind::CheckViolation => DatabaseErrorKind::CheckViolation,
        _ => DatabaseErrorKind::Other,
    }
}
