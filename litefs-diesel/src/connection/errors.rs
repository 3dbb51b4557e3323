//! The errors of statements that the connection does not run.

use diesel::result::{DatabaseErrorKind, Error};
use litefs_rpc::sqlite::refused_under_litefs;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::wire::Output;

use crate::access::Class;
use crate::failure::Failure;
use crate::node::Node;

/// Why a statement is refused under LiteFS.
pub(super) fn refusal(sql: &str) -> Error {
    let reason = statements(sql).iter().find_map(refused_under_litefs);
    Failure::Denied.error(reason.unwrap_or_else(|| "refused under LiteFS".into()))
}

/// A statement that runs here cannot run while the transaction is open on the primary, or it needs
/// both.
pub(super) fn not_in_session(class: Class) -> Error {
    if class.vacuums { sqlite_error("cannot VACUUM from within a transaction") } else { split() }
}

/// A statement, script or transaction needs the primary and this connection at once.
pub(super) fn split() -> Error {
    Failure::Denied.error(
        "on a node that is not the primary, what changes the database cannot also use temporary or \
         attached tables, in one statement, script or transaction: they exist on this connection \
         only",
    )
}

/// This node has not what a read must see.
pub(super) fn is_behind(node: &Node) -> Error {
    let waited = node.options.read_timeout;
    Failure::Behind
        .error(format!("this node has not caught up with what must be seen within {waited:?}"))
}

/// SQLite's error of a write over a connection that only reads.
pub(super) fn read_only() -> Error {
    sqlite_error("attempt to write a readonly database")
}

/// An error in SQLite's own words.
pub(super) fn sqlite_error(message: impl Into<String>) -> Error {
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.into()))
}

/// The answer to a batch is of another kind than was asked for.
pub(crate) fn unexpected(answer: &Output) -> Error {
    Failure::Protocol.error(format!("a batch was answered with {answer:?}"))
}
