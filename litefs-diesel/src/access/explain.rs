//! The other half: asking SQLite for its program.

use std::collections::HashSet;

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb};
use litefs_rpc::sqlite::{BoundQuery, WRITING_FUNCTIONS, value};
use litefs_rpc::wire::Value;

use super::classify::{Class, Program, classify};

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

/// The opcodes that call a function, with its name in P4: `name(arguments)`.
const CALLS: [&str; 7] =
    ["Function", "PureFunc", "AggStep", "AggStep1", "AggInverse", "AggValue", "AggFinal"];

fn explain(
    connection: &mut SqliteConnection,
    functions: Option<&HashSet<String>>,
    sql: &str,
) -> QueryResult<Program> {
    // EXPLAIN of an EXPLAIN is a syntax error; the inner one reads nothing but the schema.
    if sql.get(..7).is_some_and(|verb| verb.eq_ignore_ascii_case("EXPLAIN")) {
        return Ok(Program { reads_main: true, ..Program::default() });
    }
    let text = format!("EXPLAIN {sql}");
    let mut program = Program::default();
    for row in connection.load(BoundQuery::new(&text, &[], false))? {
        let row = row?;
        let column = |index: usize| diesel::row::Row::get(&row, index).map(|field| value(&field));
        match (column(1), column(5)) {
            (Some(Value::Text(opcode)), _) if opcode == "Transaction" => {
                program.touch(integer(column(2)), integer(column(3)) != 0);
            }
            (Some(Value::Text(opcode)), Some(Value::Text(called))) if CALLS.contains(&&*opcode) => {
                let name = called.split('(').next().unwrap_or_default().to_ascii_lowercase();
                program.writes_main |= WRITING_FUNCTIONS.contains(&name.as_str());
                program.calls_application |= functions.is_none_or(|all| all.contains(&name));
            }
            _ => {}
        }
    }
    Ok(program)
}

impl Program {
    fn touch(&mut self, database: i64, write: bool) {
        match (database, write) {
            (0, false) => self.reads_main = true,
            (0, true) => self.writes_main = true,
            (_, write) => {
                self.touches_other = true;
                self.writes_other |= write;
            }
        }
    }
}

fn integer(value: Option<Value>) -> i64 {
    match value {
        Some(Value::Integer(integer)) => integer,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use diesel::connection::{Connection, SimpleConnection};
    use litefs_rpc::sqlite::sql::statements;

    #[test]
    fn sqlite_itself_says_what_a_statement_does() {
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
