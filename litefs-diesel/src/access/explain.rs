//! SQLite's program for a statement, read with EXPLAIN.

use std::collections::HashSet;

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::{BoundQuery, WRITING_FUNCTIONS, value};
use litefs_rpc::wire::Value;

use super::footprint::CALLS;

/// Which databases a program touches, read from its `Transaction` opcodes
/// (<https://www.sqlite.org/opcode.html#Transaction>): P1 is the database (0 main, 1 temp, then
/// attached), P2 is not zero for a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) reads_main: bool,
    pub(super) writes_main: bool,
    pub(super) touches_other: bool,
    pub(super) writes_other: bool,
    /// It calls a function of the application.
    pub(super) calls_application: bool,
}

pub(super) fn explain(
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
