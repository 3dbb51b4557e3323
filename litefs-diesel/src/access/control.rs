//! Statements that control the transaction.

use litefs_rpc::sqlite::sql::{SqlStatement, Verb};
use litefs_rpc::wire::BeginMode;

/// A statement that controls the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// BEGIN; with a lock where the mode says so.
    Begin(Option<BeginMode>),
    Commit,
    Rollback,
    Savepoint(String),
    Release(String),
    RollbackTo(String),
}

impl Control {
    pub(crate) fn of(statement: &SqlStatement<'_>) -> Option<Self> {
        let name = || statement.savepoint_name().unwrap_or_default().to_owned();
        Some(match statement.verb() {
            Verb::Begin if !statement.begins_with_lock() => Control::Begin(None),
            Verb::Begin if statement.is_word(1, "EXCLUSIVE") => {
                Control::Begin(Some(BeginMode::Exclusive))
            }
            Verb::Begin => Control::Begin(Some(BeginMode::Immediate)),
            Verb::Commit => Control::Commit,
            Verb::Rollback => Control::Rollback,
            Verb::Savepoint if statement.is_word(0, "SAVEPOINT") => Control::Savepoint(name()),
            Verb::Savepoint if statement.is_word(0, "RELEASE") => Control::Release(name()),
            Verb::Savepoint => Control::RollbackTo(name()),
            _ => return None,
        })
    }
}
