//! From a statement's beginning and SQLite's program for it to its class.

use std::collections::HashSet;

use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb};

use super::class::{Access, Class};
use super::explain::{Program, explain};
use super::pragma::{is_elsewhere, of_pragma};

/// The class of a statement, asking `connection` for its program where that is safe. Parameters
/// need no values: EXPLAIN does not run anything. `functions` are those of the application that may
/// write, in lower case; `None` if they are not known: then any may.
pub(crate) fn classify_with(
    connection: &mut SqliteConnection,
    functions: Option<&HashSet<String>>,
    statement: &SqlStatement<'_>,
) -> Class {
    let asks_sqlite = matches!(
        statement.verb(),
        Verb::Read | Verb::Change | Verb::Schema | Verb::TempSchema | Verb::Unknown
    );
    // An error means that SQLite cannot prepare it here; the statement itself will say so where it
    // runs.
    let program =
        if asks_sqlite { explain(connection, functions, statement.sql).ok() } else { None };
    Class { guessed: asks_sqlite && program.is_none(), ..classify(statement, program) }
}

/// The functions whose answer depends on the connection's last write.
const SESSION_FUNCTIONS: [&str; 3] = ["last_insert_rowid", "changes", "total_changes"];

/// The class of one statement. `program` is `None` where SQLite could not or must not prepare it
/// here.
pub(super) fn classify(statement: &SqlStatement<'_>, program: Option<Program>) -> Class {
    let verb = statement.verb();
    let mut class = match (verb, program) {
        (Verb::Pragma, _) => {
            statement.pragma().map_or(Class::new(Access::Local), |pragma| of_pragma(&pragma))
        }
        (Verb::Begin | Verb::Commit | Verb::Rollback | Verb::Savepoint, _) => {
            Class { control: true, ..Class::new(Access::Local) }
        }
        (Verb::Attach | Verb::Detach, _) => Class::LOCAL_WRITE,
        (Verb::Vacuum, _) if !is_elsewhere(statement.schema()) => Class::new(Access::Write),
        (Verb::Vacuum | Verb::VacuumInto, _) => {
            let copies = !is_elsewhere(statement.schema());
            Class { vacuums: true, copies, ..Class::LOCAL_WRITE }
        }
        // ALTER TABLE and DROP TABLE also look through the temporary schema for what refers to the
        // table.
        (Verb::Schema, Some(Program { writes_main: true, .. })) => Class::new(Access::Write),
        // `IF (NOT) EXISTS` on an attached database that has it, or not, already.
        (
            Verb::Schema,
            Some(Program { touches_other: true, reads_main: false, writes_main: false, .. }),
        ) => Class::LOCAL_WRITE,
        // `IF (NOT) EXISTS` may be a no-op on this file and none on the primary's.
        (Verb::Schema, Some(Program { writes_main: false, writes_other: false, .. })) => {
            Class::new(Access::Write)
        }
        (_, Some(program)) => of_program(program),
        (verb, None) => of_verb(verb, statement.schema()),
    };
    class.counts = verb == Verb::Change;
    class.inserts = statement.inserts();
    class.asks_session = SESSION_FUNCTIONS.iter().any(|function| statement.calls(function));
    class.query_only =
        statement.pragma().is_some_and(|pragma| pragma.name.eq_ignore_ascii_case("query_only"));
    class.refused = litefs_rpc::sqlite::refused_under_litefs(statement).is_some();
    class
}

fn of_program(program: Program) -> Class {
    if program.writes_main {
        let (writes_locally, split) = (program.writes_other, program.touches_other);
        return Class { writes_locally, split, ..Class::new(Access::Write) };
    }
    if program.writes_other {
        return Class::LOCAL_WRITE;
    }
    let only_other = program.touches_other && !program.reads_main && !program.calls_application;
    let access = if only_other { Access::Local } else { Access::Read };
    Class { calls_application: program.calls_application, ..Class::new(access) }
}

/// The class by verb alone: the tables may not be replicated yet. In doubt it is a write.
fn of_verb(verb: Verb, schema: Option<&str>) -> Class {
    match verb {
        Verb::Read => Class::new(Access::Read),
        Verb::TempSchema => Class::LOCAL_WRITE,
        Verb::Change | Verb::Schema if is_elsewhere(schema) => Class::LOCAL_WRITE,
        _ => Class::new(Access::Write),
    }
}

#[cfg(test)]
mod tests {
    use diesel::connection::{Connection, SimpleConnection};
    use litefs_rpc::sqlite::sql::statements;

    use super::*;

    const READS: Program = Program {
        reads_main: true,
        writes_main: false,
        touches_other: false,
        writes_other: false,
        calls_application: false,
    };
    const WRITES: Program = Program { reads_main: false, writes_main: true, ..READS };
    const TEMP: Program =
        Program { reads_main: false, touches_other: true, writes_other: true, ..READS };

    fn of(sql: &str, program: Option<Program>) -> Class {
        classify(&statements(sql)[0], program)
    }

    #[test]
    fn the_program_decides_before_the_verb() {
        for (sql, program, access) in [
            ("SELECT 1", Some(Program::default()), Access::Read),
            ("SELECT * FROM t", Some(READS), Access::Read),
            ("INSERT INTO t VALUES (1)", Some(WRITES), Access::Write),
            ("INSERT INTO temp.t VALUES (1)", Some(TEMP), Access::Local),
            ("SELECT * FROM temp.t", Some(Program { writes_other: false, ..TEMP }), Access::Local),
            (
                "CREATE TEMP TABLE t AS SELECT * FROM u",
                Some(Program { reads_main: true, ..TEMP }),
                Access::Local,
            ),
            ("SELECT * FROM not_here_yet", None, Access::Read),
            ("INSERT INTO not_here_yet VALUES (1)", None, Access::Write),
            ("CREATE TEMP TABLE t(x)", None, Access::Local),
            ("gibberish", None, Access::Write),
            ("DROP TABLE IF EXISTS t", Some(READS), Access::Write),
            (
                "DROP TABLE IF EXISTS other.t",
                Some(Program { writes_other: false, ..TEMP }),
                Access::Local,
            ),
            ("VACUUM", None, Access::Write),
            ("VACUUM INTO 'copy'", None, Access::Local),
            ("VACUUM main", None, Access::Write),
            ("VACUUM other", None, Access::Local),
            ("INSERT INTO other.not_here_yet VALUES (1)", None, Access::Local),
            ("INSERT INTO not_here_yet SELECT * FROM other.t", None, Access::Write),
            ("DROP TABLE main.not_here_yet", None, Access::Write),
            ("ATTACH 'x' AS y", None, Access::Local),
        ] {
            assert_eq!(of(sql, program).access, access, "{sql}");
        }
        assert!(of("INSERT INTO t SELECT 1", Some(Program { writes_main: true, ..TEMP })).split);
    }

    #[test]
    fn a_vacuum_says_what_it_copies() {
        let flags = |sql| (of(sql, None).vacuums, of(sql, None).copies);
        assert_eq!(flags("VACUUM"), (false, false));
        assert_eq!(flags("VACUUM other"), (true, false));
        assert_eq!(flags("VACUUM other INTO 'copy'"), (true, false));
        assert_eq!(flags("VACUUM main INTO 'copy'"), (true, true));
    }

    #[test]
    fn m15_calls_of_session_functions_are_seen() {
        assert!(of("SELECT last_insert_rowid()", None).asks_session);
        assert!(of("SELECT id FROM t WHERE id = Last_Insert_Rowid ()", None).asks_session);
        assert!(!of("SELECT 'last_insert_rowid()'", None).asks_session);
    }

    #[test]
    fn sqlites_program_gives_the_class() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE VIEW v AS SELECT x FROM t;
             CREATE TRIGGER tr INSTEAD OF INSERT ON v BEGIN INSERT INTO t(x) VALUES (new.x); END;
             CREATE TEMP TABLE tmp(x)",
        )
        .unwrap();
        for (sql, access) in [
            ("SELECT * FROM t", Access::Read),
            ("SELECT 1", Access::Read),
            ("EXPLAIN SELECT * FROM t", Access::Read),
            ("WITH a AS (SELECT 1) SELECT * FROM a, t", Access::Read),
            ("INSERT INTO t(x) VALUES (?)", Access::Write),
            ("INSERT INTO v VALUES (?1)", Access::Write),
            (
                "WITH a(x) AS (VALUES (1)) INSERT INTO t(x) SELECT x FROM a RETURNING id",
                Access::Write,
            ),
            ("DELETE FROM t", Access::Write),
            ("UPDATE t SET x = :x", Access::Write),
            ("CREATE TABLE u(x)", Access::Write),
            ("DROP VIEW v", Access::Write),
            ("REINDEX", Access::Write),
            ("INSERT INTO tmp VALUES (1)", Access::Local),
            ("SELECT * FROM tmp", Access::Local),
            ("SELECT * FROM tmp, t", Access::Read),
            ("CREATE TEMP VIEW tv AS SELECT 1", Access::Local),
            ("DROP TABLE tmp", Access::Local),
            ("INSERT INTO nowhere VALUES (1)", Access::Write),
            ("SELECT diesel_manage_updated_at('t')", Access::Write),
        ] {
            let class = classify_with(&mut conn, Some(&HashSet::new()), &statements(sql)[0]);
            assert_eq!(class.access, access, "{sql}");
        }
    }

    #[test]
    fn a_call_of_the_applications_functions_is_seen_through_a_view() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute("CREATE TABLE t(x); CREATE VIEW v AS SELECT Lower(x) AS y FROM t")
            .unwrap();
        let functions = HashSet::from(["lower".to_owned(), "max".to_owned()]);
        for (sql, calls) in [
            ("SELECT LOWER('a')", true),
            ("SELECT y FROM v", true),
            ("SELECT max(x) FROM t", true),
            ("SELECT upper(x) FROM t", false),
            ("SELECT * FROM t", false),
        ] {
            let class = classify_with(&mut conn, Some(&functions), &statements(sql)[0]);
            assert_eq!(class.may_write(), calls, "{sql}");
            assert_eq!(class.is_plain_read(), !calls, "{sql}");
        }
    }
}
