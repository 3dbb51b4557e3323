//! Rows that came from the primary, as Diesel's cursor.

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_rpc::sqlite::{BoundQuery, SqlType};
use litefs_rpc::wire::RowSet;

use super::engine::{BindEngine, MAX_PARAMETERS};

type Cursor<'conn, 'query> = <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>;

impl BindEngine {
    /// A cursor over rows that came from elsewhere, of the same type as one over local rows.
    pub(crate) fn replay<'conn, 'query>(
        &'conn mut self,
        rows: RowSet,
    ) -> QueryResult<Cursor<'conn, 'query>> {
        let connection = self.connection()?;
        if rows.is_empty() {
            return connection
                .load(Replay { sql: "SELECT NULL WHERE 0".into(), rows: RowSet::default() });
        }
        if rows.values.len() <= MAX_PARAMETERS {
            let names = column_names(&rows.columns, "column", 1);
            let sql =
                format!("SELECT {names} FROM (VALUES {})", tuples(rows.columns.len(), rows.len()));
            return connection.load(Replay { sql, rows });
        }
        fill_table(connection, &rows)?;
        let sql = format!(
            "SELECT {} FROM litefs_rows ORDER BY rowid",
            column_names(&rows.columns, "c", 0)
        );
        connection.load(Replay { sql, rows: RowSet::default() })
    }
}

/// `column1 AS "id", column2 AS ..`: SQLite names the columns of VALUES so.
fn column_names(columns: &[String], prefix: &str, first: usize) -> String {
    let column = |(index, name): (usize, &String)| {
        format!("{prefix}{} AS \"{}\"", index + first, name.replace('"', "\"\""))
    };
    columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn tuples(columns: usize, rows: usize) -> String {
    let tuple = format!("({})", vec!["?"; columns].join(","));
    vec![tuple.as_str(); rows].join(",")
}

/// More values than one statement can bind. The columns have no type, so nothing is converted.
fn fill_table(connection: &mut SqliteConnection, rows: &RowSet) -> QueryResult<()> {
    let width = rows.columns.len();
    let columns: Vec<_> = (0..width).map(|index| format!("c{index}")).collect();
    connection.batch_execute(&format!(
        "DROP TABLE IF EXISTS litefs_rows; CREATE TABLE litefs_rows ({}); BEGIN",
        columns.join(", ")
    ))?;
    for chunk in rows.values.chunks(MAX_PARAMETERS / width * width) {
        let sql = format!("INSERT INTO litefs_rows VALUES {}", tuples(width, chunk.len() / width));
        connection.execute_returning_count(&BoundQuery::new(&sql, chunk, false))?;
    }
    connection.batch_execute("COMMIT")
}

/// Rows as a query of their own. Owns its values: the cursor may outlive the call.
struct Replay {
    sql: String,
    rows: RowSet,
}

impl QueryFragment<Sqlite> for Replay {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        // The text of a single row comes again and again, that of many rows hardly ever.
        if self.rows.len() != 1 {
            out.unsafe_to_cache_prepared();
        }
        BoundQuery::push(out, &self.sql, &self.rows.values)
    }
}

impl Query for Replay {
    type SqlType = SqlType;
}

impl QueryId for Replay {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_rpc::wire::Value;

    fn replayed(columns: &[&str], values: Vec<Value>) -> RowSet {
        let mut engine = BindEngine::default();
        let rows = RowSet { columns: columns.iter().map(|c| (*c).to_owned()).collect(), values };
        let cursor = engine.replay(rows).unwrap();
        litefs_rpc::sqlite::collect(cursor, usize::MAX).unwrap()
    }

    #[test]
    fn m4_rows_come_back_exactly() {
        let values = vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Real(f64::INFINITY),
            Value::Real(5e-324),
            Value::Text("a\0b \u{1F600} ' \" ?".into()),
            Value::Text(String::new()),
            Value::Blob(vec![]),
            Value::Blob(vec![0, 255, 0]),
        ];
        let rows =
            replayed(&["n", "i", "z", "inf", "d", "t", "e", "b", "we \"ird"], values.clone());
        assert_eq!(format!("{:?}", rows.values), format!("{values:?}"));
        assert_eq!(rows.columns[8], "we \"ird");
    }

    #[test]
    fn more_rows_than_sqlite_has_parameters_keep_their_order() {
        let values: Vec<_> = (0..40_000).map(Value::Integer).collect();
        assert_eq!(replayed(&["a", "b"], values.clone()).values, values);
    }

    #[test]
    fn no_rows_make_an_empty_cursor() {
        assert!(replayed(&["a"], vec![]).is_empty());
    }
}
