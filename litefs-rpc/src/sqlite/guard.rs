//! Statements that must not run: under LiteFS at all, or on behalf of another node.

use super::sql::{Pragma, SqlStatement, Verb, statements};

/// Why a statement must not run under LiteFS on any node, or `None` if it may.
///
/// LiteFS replicates the pages of a WAL database. If the database leaves WAL, every replica stops
/// with a checksum error. LiteFS refuses an exclusive lock half-way. A new page size makes the
/// database unusable.
#[must_use]
pub fn refused_under_litefs(statement: &SqlStatement<'_>) -> Option<String> {
    let Pragma { schema, name, value } = statement.pragma()?;
    if schema.is_some_and(|schema| schema.eq_ignore_ascii_case("temp")) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let value = value?.to_ascii_lowercase();
    match name.as_str() {
        "journal_mode" if value != "wal" => Some(format!(
            "PRAGMA journal_mode = {value}: leaving WAL makes every LiteFS replica of this \
             database stop for good"
        )),
        "locking_mode" if value == "exclusive" => {
            Some("PRAGMA locking_mode = exclusive: LiteFS must be able to lock the database".into())
        }
        "page_size" => {
            Some("PRAGMA page_size: the page size of a database is fixed under LiteFS".into())
        }
        _ => None,
    }
}

/// Where SQL of another node is going to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One statement outside a transaction.
    Autocommit,
    /// A script, which may contain its own transactions.
    Script,
    /// A statement inside an open transaction.
    Transaction,
}

/// Why SQL of another node must not run, or `None` if it may.
pub(super) fn refused_from_remote(sql: &str, scope: Scope) -> Option<String> {
    let all = statements(sql);
    if scope == Scope::Autocommit && all.len() > 1 {
        return Some("several statements where one was announced".into());
    }
    all.iter()
        .find_map(|statement| refused_under_litefs(statement).or_else(|| escapes(statement, scope)))
}

/// Why a statement that reaches beyond the database, or that would change the primary's connection
/// for later requests, is refused.
fn escapes(statement: &SqlStatement<'_>, scope: Scope) -> Option<String> {
    let refused = |what: &str| Some(what.to_string());
    match statement.verb() {
        Verb::Attach | Verb::Detach => {
            refused("ATTACH and DETACH reach files of the primary; they stay local")
        }
        Verb::VacuumInto => refused(
            "VACUUM INTO writes files of the primary; run it on the node that wants the copy",
        ),
        Verb::TempSchema => refused(
            "a temporary object lives on its own connection; it cannot be made on the primary",
        ),
        Verb::Begin | Verb::Commit | Verb::Rollback if scope != Scope::Script => {
            refused("transactions are opened and closed through the connection, not by a statement")
        }
        Verb::Pragma => writable_schema(statement).or_else(|| query_only(statement)),
        _ if statement.calls("load_extension") => {
            refused("load_extension() loads code into the primary")
        }
        _ => None,
    }
}

fn writable_schema(statement: &SqlStatement<'_>) -> Option<String> {
    let pragma = statement.pragma()?;
    pragma.name.eq_ignore_ascii_case("writable_schema").then(|| {
        "PRAGMA writable_schema can corrupt the database; it is not taken from other nodes".into()
    })
}

/// The PRAGMA would make the primary's connection refuse writes.
fn query_only(statement: &SqlStatement<'_>) -> Option<String> {
    let sets = statement.pragma()?;
    let is_set = sets.name.eq_ignore_ascii_case("query_only") && sets.value.is_some();
    is_set.then(|| {
        "PRAGMA query_only applies to its own connection only; run it alone, not in a script".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_what_escapes_the_database_is_refused() {
        for sql in [
            "ATTACH 'x' AS y",
            "DETACH y",
            "SELECT load_extension('x')",
            "INSERT INTO t SELECT \"load_extension\"('x')",
            "PRAGMA writable_schema = ON",
            "VACUUM INTO '/tmp/x'",
            "PRAGMA journal_mode = delete",
            "EXPLAIN PRAGMA writable_schema = ON",
            "EXPLAIN QUERY PLAN PRAGMA query_only = OFF",
            "CREATE TEMP TABLE t(x)",
            "COMMIT",
            "SELECT 1; SELECT 2",
            "\u{feff}ATTACH 'x' AS y",
            "\u{feff}PRAGMA writable_schema = ON",
            "SELECT $a(;); SELECT 2",
        ] {
            assert!(refused_from_remote(sql, Scope::Autocommit).is_some(), "{sql}");
        }
        assert_eq!(refused_from_remote("SELECT 1; BEGIN; COMMIT", Scope::Script), None);
        assert!(
            refused_from_remote("INSERT INTO t VALUES (1); ATTACH 'x' AS y", Scope::Script)
                .is_some()
        );
        assert!(refused_from_remote("COMMIT", Scope::Transaction).is_some());
        assert_eq!(refused_from_remote("SAVEPOINT a", Scope::Transaction), None);
    }

    #[test]
    fn pragmas_that_destroy_replicas_are_refused_and_their_harmless_forms_are_not() {
        let refused = |sql| refused_under_litefs(&statements(sql)[0]).is_some();
        assert!(refused("PRAGMA journal_mode=DELETE"));
        assert!(refused("PRAGMA main.journal_mode = 'truncate'"));
        assert!(refused("PRAGMA locking_mode(EXCLUSIVE)"));
        assert!(refused("PRAGMA page_size = 8192"));
        assert!(refused("PRAGMA locking_mode(exclusive /**/)"));
        assert!(refused("PRAGMA journal_mode = /* to */ [off] /* now */"));
        assert!(!refused("PRAGMA temp.journal_mode = MEMORY"));
        assert!(!refused("PRAGMA journal_mode"));
        assert!(!refused("PRAGMA journal_mode = WAL"));
        assert!(!refused("PRAGMA page_size"));
    }
}
