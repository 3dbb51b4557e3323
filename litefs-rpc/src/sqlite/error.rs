use diesel::result::{DatabaseErrorKind as DieselKind, Error};

use crate::wire::{DatabaseError, DatabaseErrorKind, Refusal};

/// A local Diesel error as it travels to the node that asked.
pub fn from_diesel(error: Error) -> Refusal {
    let (kind, message) = match error {
        Error::DatabaseError(kind, information) => (from_kind(&kind), information.message().to_owned()),
        Error::SerializationError(error) => (DatabaseErrorKind::Serialization, error.to_string()),
        Error::DeserializationError(error) => (DatabaseErrorKind::Deserialization, error.to_string()),
        other => (DatabaseErrorKind::Other, other.to_string()),
    };
    Refusal::Database(DatabaseError { kind, message })
}

/// An error that is not one of SQLite's own, with this message.
pub(super) fn other(message: String) -> Refusal {
    Refusal::Database(DatabaseError { kind: DatabaseErrorKind::Other, message })
}

pub(super) fn denied(what: String) -> Refusal {
    Refusal::Denied { what }
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
