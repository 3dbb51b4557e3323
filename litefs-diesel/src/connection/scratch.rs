//! A private in-memory SQLite database per connection: it turns any query's bind values into plain values, and
//! plain rows into Diesel's cursor.

use diesel::backend::Backend;
use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::query_builder::{AstPass, MoveableBindCollector, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::{Sqlite, SqliteConnection, SqliteQueryBuilder};
use litefs_rpc::sqlite::{BoundQuery, SqlType, value};
use litefs_rpc::wire::{RowSet, Statement, Value};

pub(super) type Cursor<'conn, 'query> = <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>;

/// SQLite's limit on parameters of one statement, <https://www.sqlite.org/limits.html>.
const MAX_PARAMETERS: usize = 32_766;
/// Up to this many binds the probe's statement is kept prepared.
const CACHED_BINDS: usize = 64;

/// Opened at the first forwarded statement: a connection that only reads never needs it.
#[derive(Default)]
pub(super) struct Scratch(Option<SqliteConnection>);

impl Scratch {
    fn connection(&mut self) -> QueryResult<&mut SqliteConnection> {
        if self.0.is_none() {
            let mut connection = SqliteConnection::establish(":memory:")
                .map_err(|error| Error::QueryBuilderError(Box::new(error)))?;
            connection.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
            self.0 = Some(connection);
        }
        Ok(self.0.as_mut().expect("it was opened just now"))
    }

    /// A query as text and plain values.
    pub(super) fn capture<T>(&mut self, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let cacheable = query.is_safe_to_cache_prepared(&Sqlite)?;
        Ok(Statement { sql: sql_of(query)?, params: self.binds(query)?, cacheable })
    }

    /// The values that `query` binds. SQLite itself converts them: what comes back is what it would have stored.
    fn binds<T>(&mut self, query: &T) -> QueryResult<Vec<Value>>
    where
        T: QueryFragment<Sqlite>,
    {
        let mut collector = BindCollector::default();
        query.collect_binds(&mut collector, &mut (), &Sqlite)?;
        let binds = collector.moveable();
        let count = count(&binds);
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > MAX_PARAMETERS {
            // The primary's SQLite would say the same; the probe cannot even be built.
            return Err(Error::DatabaseError(
                diesel::result::DatabaseErrorKind::Unknown,
                Box::new("too many SQL variables".to_string()),
            ));
        }
        let mut values = Vec::with_capacity(count);
        for row in self.connection()?.load(Probe { binds, count })? {
            let row = row?;
            let field = diesel::row::Row::get(&row, 0).expect("the probe has one column");
            values.push(value(&field));
        }
        Ok(values)
    }

    /// A cursor over rows that came from elsewhere, of the same type as one over local rows.
    pub(super) fn replay<'conn, 'query>(&'conn mut self, rows: RowSet) -> QueryResult<Cursor<'conn, 'query>> {
        let connection = self.connection()?;
        if rows.is_empty() {
            return connection.load(Replay { sql: "SELECT NULL WHERE 0".into(), rows: RowSet::default() });
        }
        if rows.values.len() <= MAX_PARAMETERS {
            let names = column_names(&rows.columns, "column", 1);
            let sql = format!("SELECT {names} FROM (VALUES {})", tuples(rows.columns.len(), rows.len()));
            return connection.load(Replay { sql, rows });
        }
        fill_table(connection, &rows)?;
        let sql = format!("SELECT {} FROM litefs_rows ORDER BY rowid", column_names(&rows.columns, "c", 0));
        connection.load(Replay { sql, rows: RowSet::default() })
    }
}

/// The SQL text of a query.
pub(super) fn sql_of<T: QueryFragment<Sqlite>>(query: &T) -> QueryResult<String> {
    let mut builder = SqliteQueryBuilder::new();
    query.to_sql(&mut builder, &Sqlite)?;
    Ok(builder.finish())
}

type BindCollector<'a> = <Sqlite as Backend>::BindCollector<'a>;
type Binds = <BindCollector<'static> as MoveableBindCollector<Sqlite>>::BindData;

/// Placeholders in the text do not count: they may be repeated or stand in a string.
fn count(binds: &Binds) -> usize {
    let mut debug = Vec::new();
    BindCollector::push_debug_binds(binds, &mut debug);
    debug.len()
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

/// Binds what another query binds, and selects it.
struct Probe {
    binds: Binds,
    count: usize,
}

impl QueryFragment<Sqlite> for Probe {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        if self.count > CACHED_BINDS {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql("VALUES (?)");
        for _ in 1..self.count {
            out.push_sql(",(?)");
        }
        out.push_bind_collector_data(&self.binds)
    }
}

impl Query for Probe {
    type SqlType = SqlType;
}

impl QueryId for Probe {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
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

    fn replayed(columns: &[&str], values: Vec<Value>) -> RowSet {
        let mut scratch = Scratch::default();
        let rows = RowSet { columns: columns.iter().map(|c| (*c).to_owned()).collect(), values };
        let cursor = scratch.replay(rows).unwrap();
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
        let rows = replayed(&["n", "i", "z", "inf", "d", "t", "e", "b", "we \"ird"], values.clone());
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

    #[test]
    fn binds_are_read_back_as_sqlite_would_store_them() {
        use diesel::sql_types::{Binary, Bool, Double, Integer, Nullable, Text};
        let query = diesel::sql_query("INSERT INTO t VALUES (?1, ?1, '?', ?2, ?3, ?4, ?5, ?6)")
            .bind::<Integer, _>(7)
            .bind::<Text, _>("a\0?")
            .bind::<Double, _>(f64::NAN)
            .bind::<Nullable<Text>, _>(None::<String>)
            .bind::<Binary, _>(vec![1_u8, 2])
            .bind::<Bool, _>(true);
        let statement = Scratch::default().capture(&query).unwrap();
        assert_eq!(
            statement.params,
            vec![
                Value::Integer(7),
                Value::Text("a\0?".into()),
                Value::Null,
                Value::Null,
                Value::Blob(vec![1, 2]),
                Value::Integer(1),
            ]
        );
        assert!(statement.sql.starts_with("INSERT INTO t VALUES (?1, ?1,"));
    }
}
