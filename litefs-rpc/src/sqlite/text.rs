//! What the SQL text of a command tells before it runs.

use super::sql::{SqlStatement, Verb, statements, tokens};
use crate::wire::Command;

/// Whether `total_changes()` counts what the statement does.
pub(super) fn changes_rows(sql: &str) -> bool {
    begins_with_change(sql)
        || statements(sql).first().is_some_and(|statement| statement.verb() == Verb::Change)
}

/// The most common beginnings of statements that change rows. They are recognized without parsing
/// the rest.
pub(super) fn begins_with_change(sql: &str) -> bool {
    let begins =
        |verb: &str| sql.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    ["INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| begins(verb))
}

/// Whether the command is one statement that reads, according to its text.
pub(super) fn only_reads(work: &Command) -> bool {
    let reads = |sql: &str| statements(sql).iter().all(|statement| statement.verb() == Verb::Read);
    matches!(work, Command::Execute(statement) | Command::Query(statement) if reads(&statement.sql))
}

/// Whether the command is a script of more than one statement.
pub(super) fn is_multi_statement(work: &Command) -> bool {
    matches!(work, Command::Script(sql) if statements(sql).len() > 1)
}

/// Whether the statement changes state of the connection itself, so that the next request must not
/// run on it.
pub(super) fn alters_connection(statement: &SqlStatement<'_>) -> bool {
    !matches!(statement.verb(), Verb::Read | Verb::Change | Verb::Schema)
}

/// Whether only `last_insert_rowid()` tells if the last statement inserted a row: `changes()` also
/// counts the rows that an upsert updated.
pub(super) fn needs_rowid_mark(work: &Command) -> bool {
    let inserts = |sql: &str| statements(sql).iter().any(|statement| statement.inserts());
    let chooses = |sql: &str| tokens(sql).any(|token| token.is("CONFLICT") || token.is("OR"));
    match work {
        Command::Execute(statement) | Command::Query(statement) => {
            chooses(&statement.sql) && inserts(&statement.sql)
        }
        Command::Insert(rows) => chooses(&rows.sql) && inserts(&rows.sql),
        Command::Script(sql) => inserts(sql),
        Command::Batch { statements, .. } => {
            statements.iter().any(|repeated| inserts(&repeated.sql))
        }
        Command::Transaction(_) => work.texts().any(inserts),
        Command::Call(_) => true,
    }
}
