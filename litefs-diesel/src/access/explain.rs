//! The other half: asking SQLite for its program.

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb};
use litefs_rpc::sqlite::{BoundQuery, value};
use litefs_rpc::wire::Value;

use super::classify::{Class, Program, classify};

/// The class of a statement, asking `connection` for its program where that is safe. Parameters need no values:
/// EXPLAIN does not run anything.
pub(crate) fn classify_with(connection: &mut SqliteConnection, statement: &SqlStatement<'_>) -> Class {
    let asks_sqlite = matches!(
        statement.verb(),
        Verb::Read | Verb::Change | Verb::Schema | Verb::TempSchema | Verb::Unknown
    );
    // An error means that SQLite cannot prepare it here; the statement itself will say so where it runs.
    let program = if asks_sqlite { explain(connection, statement.sql).ok() } else { None };
    Class { guessed: asks_sqlite && program.is_none(), ..classify(statement, program) }
}

fn explain(connection: &mut SqliteConnection, sql: &str) -> QueryResult<Program> {
    // EXPLAIN of an EXPLAIN is a syntax error; the inner one reads nothing but the schema.
    if sql.get(..7).is_some_and(|verb| verb.eq_ignore_ascii_case("EXPLAIN")) {
        return Ok(Program { reads_main: true, ..Program::default() });
    }
    let text = format!("EXPLAIN {sql}");
    let mut program = Program::default();
    for row in connection.load(BoundQuery::new(&text, &[], false))? {
        let row = row?;
        let column = |index: usize| diesel::row::Row::get(&row, index).map(|field| value(&field));
        if column(1) != Some(Value::Text("Transaction".into())) {
            continue;
        }
        let (database, write) = (integer(column(2)), integer(column(3)) != 0);
        match (database, write) {
            (0, false) => program.reads_main = true,
            (0, true) => program.writes_main = true,
            (_, false) => program.touches_other = true,
            (_, true) => {
                program.touches_other = true;
                program.writes_other = true;
            }
        }
    }
    Ok(program)
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
            ("WITH a(x) AS (VALUES (1)) INSERT INTO t(x) SELECT x FROM a RETURNING id", Access::Write),
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
        ] {
            assert_eq!(classify_with(&mut conn, &statements(sql)[0]).access, access, "{sql}");
        }
    }
}
