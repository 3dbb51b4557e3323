//! How LiteFS says no.

/// Whether SQLite's message is one of those with which LiteFS rejects a write on a node that is not the primary:
/// `SQLITE_IOERR_WRITE` at COMMIT in WAL, `SQLITE_READONLY` otherwise, and what `query_only` says before either.
///
/// Diesel passes the message on, not the code. Disk errors look the same, so this is a reason to look at the role
/// again, not a proof.
pub(crate) fn rejected_by_litefs(message: &str) -> bool {
    message.contains("disk I/O error") || message.contains("attempt to write a readonly database")
}

/// The same for a Diesel error.
pub(crate) fn is_rejection(error: &diesel::result::Error) -> bool {
    match error {
        diesel::result::Error::DatabaseError(_, information) => rejected_by_litefs(information.message()),
        _ => false,
    }
}
