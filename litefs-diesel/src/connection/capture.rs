//! Queries as text and plain values, which can travel.

use diesel::backend::Backend;
use diesel::connection::LoadConnection;
use diesel::query_builder::{AstPass, MoveableBindCollector, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::row::Row as _;
use diesel::sql_types::BigInt;
use diesel::sqlite::{Sqlite, SqliteQueryBuilder};
use litefs_rpc::sqlite::{SqlType, value};
use litefs_rpc::wire::{Repeated, Statement, Value};

use super::scratch::{MAX_PARAMETERS, Scratch};

/// Up to this many binds the probe's statement is kept prepared.
const CACHED_BINDS: usize = 64;
/// The values that one probe of many queries reads at most.
const PROBED: usize = 1_024;
/// Stands behind the values of each query of a probe, to show that each has bound as many as the first.
const MARKER: i64 = 0x6c69_7465_6673_5f7c;

impl Scratch {
    /// A query as text and plain values.
    pub(super) fn capture<T>(&mut self, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let cacheable = query.is_safe_to_cache_prepared(&Sqlite)?;
        let sql = sql_of(query)?;
        let params = self.binds(query, &sql)?;
        Ok(Statement { sql, params, cacheable })
    }

    /// Many queries, those with one text after another together.
    pub(super) fn capture_all<T>(&mut self, queries: &[T]) -> QueryResult<Vec<Repeated>>
    where
        T: QueryFragment<Sqlite>,
    {
        let mut all = Vec::new();
        let mut left = queries;
        while let Some((first, others)) = left.split_first() {
            let mut repeated = Repeated::from(self.capture(first)?);
            let alike = self.capture_alike(others, &mut repeated)?;
            all.push(repeated);
            left = &others[alike..];
        }
        Ok(all)
    }

    /// Adds the first of `queries` that have the same text, and returns how many.
    fn capture_alike<T>(&mut self, queries: &[T], repeated: &mut Repeated) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite>,
    {
        let width = repeated.params.len();
        let mut alike = 0;
        for some in queries.chunks((PROBED / (width + 1)).max(1)) {
            let same = count_with_text(&repeated.sql, some)?;
            // Where one cannot be serialized, or binds more or fewer values than there are places: one by one.
            if same == 0 || !self.binds_of_all(&some[..same], width, &mut repeated.params) {
                break;
            }
            repeated.times += same;
            alike += same;
            if same < some.len() {
                break;
            }
        }
        Ok(alike)
    }

    /// Adds the values that the queries bind, `width` each, in one statement. `false`, with nothing added: it must be done
    /// one by one.
    fn binds_of_all<T>(&mut self, queries: &[T], width: usize, values: &mut Vec<Value>) -> bool
    where
        T: QueryFragment<Sqlite>,
    {
        let count = queries.len() * (width + 1);
        let before = values.len();
        let read = self.read_all(queries, count, width, values);
        if read.is_none() {
            values.truncate(before);
        }
        read.is_some()
    }

    fn read_all<T>(
        &mut self,
        queries: &[T],
        count: usize,
        width: usize,
        values: &mut Vec<Value>,
    ) -> Option<()>
    where
        T: QueryFragment<Sqlite>,
    {
        // With more places than are needed, so that few such statements have to be prepared.
        let places = Places { count: count.next_power_of_two().max(CACHED_BINDS), cached: count <= PROBED };
        let mut at = 0;
        let result = self.probe(Marked { queries, places }, count, |value| {
            let is_marker = at % (width + 1) == width;
            at += 1;
            match value {
                Value::Integer(MARKER) if is_marker => true,
                _ if is_marker => false,
                value => {
                    values.push(value);
                    true
                }
            }
        });
        result.is_ok_and(|complete| complete).then_some(())
    }

    /// The values that `query` binds. SQLite itself converts them: what comes back is what it would have stored.
    fn binds<T>(&mut self, query: &T, sql: &str) -> QueryResult<Vec<Value>>
    where
        T: QueryFragment<Sqlite>,
    {
        let places = sql.bytes().filter(|byte| *byte == b'?').count();
        if places > CACHED_BINDS
            && places < MAX_PARAMETERS
            && let Some(values) = self.many_binds(query, places)
        {
            return Ok(values);
        }
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
        let places = Places { count, cached: count <= CACHED_BINDS };
        self.probe(Owned { binds, places }, count, |value| {
            values.push(value);
            true
        })?;
        Ok(values)
    }

    /// The values of a query that has about as many `places` in its text, without copying them in order to count them.
    /// `None`: it has more.
    fn many_binds<T>(&mut self, query: &T, places: usize) -> Option<Vec<Value>>
    where
        T: QueryFragment<Sqlite>,
    {
        let places = Places { count: places + 1, cached: false };
        let mut values = Vec::with_capacity(places.all());
        let queries = std::slice::from_ref(query);
        let read = self.probe(Marked { queries, places }, places.all(), |value| {
            values.push(value);
            true
        });
        // Nothing is bound behind the marker, and what is not bound is NULL.
        while values.pop_if(|value| *value == Value::Null).is_some() {}
        (read.is_ok() && values.pop() == Some(Value::Integer(MARKER))).then_some(values)
    }

    /// Hands over the first `count` values that the probe selects, until one is not taken. `false`: one was not.
    fn probe<P>(&mut self, probe: P, count: usize, mut take: impl FnMut(Value) -> bool) -> QueryResult<bool>
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

/// The SQL text of a query.
pub(super) fn sql_of<T: QueryFragment<Sqlite>>(query: &T) -> QueryResult<String> {
    let mut builder = SqliteQueryBuilder::new();
    query.to_sql(&mut builder, &Sqlite)?;
    Ok(builder.finish())
}

/// How many of the queries, from the first on, have this text.
fn count_with_text<T: QueryFragment<Sqlite>>(sql: &str, queries: &[T]) -> QueryResult<usize> {
    for (at, query) in queries.iter().enumerate() {
        if sql_of(query)? != sql {
            return Ok(at);
        }
    }
    Ok(queries.len())
}

type BindCollector<'a> = <Sqlite as Backend>::BindCollector<'a>;
type Binds = <BindCollector<'static> as MoveableBindCollector<Sqlite>>::BindData;

/// Placeholders in the text do not count: they may be repeated or stand in a string.
fn count(binds: &Binds) -> usize {
    let mut debug = Vec::new();
    BindCollector::push_debug_binds(binds, &mut debug);
    debug.len()
}

/// The places of a probe: rows of many columns, which SQLite prepares several times faster than many rows.
#[derive(Debug, Clone, Copy)]
struct Places {
    count: usize,
    cached: bool,
}

impl Places {
    /// Divides [`MAX_PARAMETERS`].
    const COLUMNS: usize = 86;

    /// With those that fill the last row.
    fn all(self) -> usize {
        if self.count <= Self::COLUMNS { self.count } else { self.count.next_multiple_of(Self::COLUMNS) }
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
struct Owned {
    binds: Binds,
    places: Places,
}

impl QueryFragment<Sqlite> for Owned {
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

impl Query for Owned {
    type SqlType = SqlType;
}

impl QueryId for Owned {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Binds what other queries bind, a marker behind each, and selects it.
struct Marked<'a, T> {
    queries: &'a [T],
    places: Places,
}

impl<T: QueryFragment<Sqlite>> QueryFragment<Sqlite> for Marked<'_, T> {
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

impl<T> Query for Marked<'_, T> {
    type SqlType = SqlType;
}

impl<T> QueryId for Marked<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    use diesel::query_builder::{BoxedSqlQuery, SqlQuery};

    fn query(sql: &str, binds: &[i32]) -> BoxedSqlQuery<'static, Sqlite, SqlQuery> {
        let start = diesel::sql_query(sql).into_boxed::<Sqlite>();
        binds.iter().fold(start, |query, bind| query.bind::<diesel::sql_types::Integer, _>(*bind))
    }

    fn integers(values: impl IntoIterator<Item = i64>) -> Vec<Value> {
        values.into_iter().map(Value::Integer).collect()
    }

    #[test]
    fn queries_with_one_text_are_captured_together_in_their_order() {
        let mut queries: Vec<_> =
            (0..1_000).map(|n| query("INSERT INTO t VALUES (?, ?)", &[n, -n])).collect();
        queries.push(query("DELETE FROM t", &[]));
        queries.push(query("DELETE FROM t", &[]));
        queries.push(query("INSERT INTO t VALUES (?, ?)", &[7, 8]));
        let all = Scratch::default().capture_all(&queries).unwrap();
        let shape: Vec<_> = all.iter().map(|one| (one.times, one.params.len())).collect();
        assert_eq!(shape, [(1_000, 2_000), (2, 0), (1, 2)]);
        assert_eq!(all[0].params, integers((0..1_000).flat_map(|n| [n, -n])));
        assert_eq!(all[2].params, integers([7, 8]));
        assert!(Scratch::default().capture_all(&queries[..0]).unwrap().is_empty());
    }

    #[test]
    fn values_stay_with_their_query_where_it_binds_more_or_fewer_than_it_has_places() {
        let sql = "INSERT INTO t VALUES (?, ?)";
        // As many in all as there would have to be.
        let queries: Vec<_> =
            [&[1, 2][..], &[3, 4], &[5], &[6, 7, 8]].iter().map(|b| query(sql, b)).collect();
        let all = Scratch::default().capture_all(&queries).unwrap();
        let values: Vec<_> = all.iter().flat_map(|one| one.runs().map(<[Value]>::to_vec)).collect();
        assert_eq!(values, [&[1, 2][..], &[3, 4], &[5], &[6, 7, 8]].map(|b| integers(b.iter().copied())));
        for count in [99, 100, 101, 150] {
            let binds: Vec<_> = (1..=count).collect();
            let many = query(&format!("SELECT {}", vec!["?"; 100].join(", ")), &binds);
            let params = Scratch::default().capture(&many).unwrap().params;
            assert_eq!(params, integers((1..=count).map(i64::from)));
        }
        let null = diesel::sql_query("SELECT ?")
            .bind::<diesel::sql_types::Nullable<diesel::sql_types::Integer>, _>(None::<i32>);
        assert_eq!(Scratch::default().capture(&null).unwrap().params, [Value::Null]);
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
