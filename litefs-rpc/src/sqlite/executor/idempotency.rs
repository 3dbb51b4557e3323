//! How a command can be applied exactly once.

use crate::sqlite::sql::{SqlStatement, Verb, statements};
use crate::sqlite::text::changes_rows;
use crate::wire::Command;

/// How a command can be applied exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idempotency {
    /// The command and the record of its outcome share one transaction.
    SingleTransaction,
    /// The command cannot run inside a transaction, and a second run changes nothing: VACUUM and
    /// PRAGMAs.
    SafeToRepeat,
    /// The command is a script with its own transactions or PRAGMAs: one record says that it has
    /// begun, and is replaced by its outcome afterwards.
    BeginRecord,
}

impl Idempotency {
    pub(super) fn of(work: &Command) -> Self {
        let all = match work {
            Command::Batch { .. }
            | Command::Insert(_)
            | Command::Transaction(_)
            | Command::Call(_) => return Self::SingleTransaction,
            // The most common beginnings are recognized without parsing the rest.
            Command::Execute(statement) | Command::Query(statement)
                if changes_rows(&statement.sql) =>
            {
                return Self::SingleTransaction;
            }
            Command::Execute(statement) | Command::Query(statement) => statements(&statement.sql),
            Command::Script(sql) => statements(sql),
        };
        let fits = |s: &SqlStatement<'_>| {
            matches!(s.verb(), Verb::Read | Verb::Change | Verb::Schema | Verb::Unknown)
                || is_transactional_pragma(s)
        };
        let repeats = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Pragma | Verb::Vacuum);
        if all.iter().all(fits) {
            Self::SingleTransaction
        } else if all.iter().all(repeats) {
            Self::SafeToRepeat
        } else {
            Self::BeginRecord
        }
    }
}

/// PRAGMAs that set a field of the database's header, as any other write does.
fn is_transactional_pragma(statement: &SqlStatement<'_>) -> bool {
    let in_header = ["user_version", "application_id"];
    statement.pragma().is_some_and(|pragma| {
        pragma.value.is_some()
            && in_header.iter().any(|name| pragma.name.eq_ignore_ascii_case(name))
    })
}
