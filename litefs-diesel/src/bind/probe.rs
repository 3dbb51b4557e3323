//! Probes: statements that bind what other queries bind, and select it.

use diesel::backend::Backend;
use diesel::connection::LoadConnection;
use diesel::query_builder::{
    AstPass, MoveableBindCollector, Query, QueryBuilder, QueryFragment, QueryId,
};
use diesel::result::QueryResult;
use diesel::row::Row as _;
use diesel::sql_types::BigInt;
use diesel::sqlite::{Sqlite, SqliteQueryBuilder};
use litefs_rpc::sqlite::{SqlType, value};
use litefs_rpc::wire::Value;

use super::engine::BindEngine;

/// Follows the values of each query, to show that the query has bound one value per placeholder.
pub(super) const MARKER: i64 = 0x6c69_7465_6673_5f7c;

impl BindEngine {
    /// Passes the first `count` values that the probe selects to `take`. `false`: `take` refused
    /// one.
    pub(super) fn probe<P>(
        &mut self,
        probe: P,
        count: usize,
        mut take: impl FnMut(Value) -> bool,
    ) -> QueryResult<bool>
    where
        P: QueryFragment<Sqlite> + Query<SqlType = SqlType> + QueryId,
    {
        let mut left = count;
        for row in self.connection()?.load(probe)? {
            let row = row?;
            for at in 0..row.field_count().min(left) {
                let field = row.get(at).expect("the index is below the field count");
                if !take(value(&field)) {
                    return Ok(false);
                }
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        Ok(true)
    }
}

pub(crate) type BindCollector<'a> = <Sqlite as Backend>::BindCollector<'a>;
pub(crate) type Binds = <BindCollector<'static> as MoveableBindCollector<Sqlite>>::BindData;

/// Placeholders in the text do not count: they may be repeated or stand in a string.
pub(super) fn count(binds: &Binds) -> usize {
    let mut debug = Vec::new();
    BindCollector::push_debug_binds(binds, &mut debug);
    debug.len()
}

/// The places of a probe: rows of many columns, which SQLite prepares several times faster than
/// many rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) count: usize,
    /// Whether the statement is kept prepared.
    pub(super) cached: bool,
}

impl Places {
    /// Divides [`MAX_PARAMETERS`].
    const COLUMNS: usize = 86;

    /// With those that fill the last row.
    fn all(self) -> usize {
        if self.count <= Self::COLUMNS {
            self.count
        } else {
            self.count.next_multiple_of(Self::COLUMNS)
        }
    }

    fn push(self, out: &mut SqliteQueryBuilder) {
        let columns = self.count.min(Self::COLUMNS);
        for place in 0..self.all() {
            out.push_sql(match place {
                0 => "VALUES (?",
                _ if place % columns == 0 => "),(?",
                _ => ",?",
            });
        }
        out.push_sql(")");
    }
}

/// Binds what was collected from another query, and selects it.
pub(super) struct CollectedProbe {
    pub(super) binds: Binds,
    pub(super) places: Places,
}

impl QueryFragment<Sqlite> for CollectedProbe {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_bind_collector_data(&self.binds)
    }

    fn to_sql(&self, out: &mut SqliteQueryBuilder, _: &Sqlite) -> QueryResult<()> {
        self.places.push(out);
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, _: &Sqlite) -> QueryResult<bool> {
        Ok(self.places.cached)
    }
}

impl Query for CollectedProbe {
    type SqlType = SqlType;
}

impl QueryId for CollectedProbe {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Binds what other queries bind, a marker behind each, and selects it.
pub(super) struct QueriesProbe<'a, T> {
    pub(super) queries: &'a [T],
    pub(super) places: Places,
}

impl<T: QueryFragment<Sqlite>> QueryFragment<Sqlite> for QueriesProbe<'_, T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.queries.iter().try_for_each(|query| {
            query.walk_ast(out.reborrow())?;
            out.push_bind_param_value_only::<BigInt, i64>(&MARKER)
        })
    }

    fn to_sql(&self, out: &mut SqliteQueryBuilder, _: &Sqlite) -> QueryResult<()> {
        self.places.push(out);
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, _: &Sqlite) -> QueryResult<bool> {
        Ok(self.places.cached)
    }
}

impl<T> Query for QueriesProbe<'_, T> {
    type SqlType = SqlType;
}

impl<T> QueryId for QueriesProbe<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
