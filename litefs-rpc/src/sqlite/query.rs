//! SQL text with parameter values, as a Diesel query.

use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text, Untyped};
use diesel::sqlite::Sqlite;

use crate::wire::Value;

/// The SQL type of results whose shape is only known when they arrive.
pub type SqlType = Untyped;

/// SQL text with the values of its parameters, as a Diesel query. The text is used as it stands:
/// its own placeholders (`?`, `?1`, `:name`) are bound by position.
#[derive(Debug, Clone, Copy)]
pub struct BoundQuery<'a> {
    sql: &'a str,
    params: &'a [Value],
    cacheable: bool,
}

impl<'a> BoundQuery<'a> {
    /// `cacheable`: keep the prepared statement on the connection.
    #[must_use]
    pub fn new(sql: &'a str, params: &'a [Value], cacheable: bool) -> Self {
        Self { sql, params, cacheable }
    }

    /// The same for queries that own their text and values.
    ///
    /// # Errors
    /// Those of the pass itself.
    pub fn push<'b>(
        mut out: AstPass<'_, 'b, Sqlite>,
        sql: &'b str,
        params: &'b [Value],
    ) -> QueryResult<()> {
        out.push_sql(sql);
        params.iter().try_for_each(|value| push(&mut out, value))
    }
}

impl QueryFragment<Sqlite> for BoundQuery<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        if !self.cacheable {
            out.unsafe_to_cache_prepared();
        }
        Self::push(out, self.sql, self.params)
    }
}

/// Binds a value as what it is, so that SQLite stores exactly that.
fn push<'b>(out: &mut AstPass<'_, 'b, Sqlite>, value: &'b Value) -> QueryResult<()> {
    match value {
        Value::Null => out.push_bind_param_value_only::<Nullable<BigInt>, Option<i64>>(&None),
        Value::Integer(integer) => out.push_bind_param_value_only::<BigInt, i64>(integer),
        Value::Real(real) => out.push_bind_param_value_only::<Double, f64>(real),
        Value::Text(text) => out.push_bind_param_value_only::<Text, str>(text),
        Value::Blob(bytes) => out.push_bind_param_value_only::<Binary, [u8]>(bytes),
    }
}

impl Query for BoundQuery<'_> {
    type SqlType = SqlType;
}

impl QueryId for BoundQuery<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Conn> diesel::RunQueryDsl<Conn> for BoundQuery<'_> {}
