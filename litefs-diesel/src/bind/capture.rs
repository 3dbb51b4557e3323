//! Queries as text and plain values, which can travel.

use diesel::query_builder::{MoveableBindCollector, QueryBuilder, QueryFragment};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::{Sqlite, SqliteQueryBuilder};
use litefs_rpc::wire::{Repeated, Statement, Value};

use super::engine::{BindEngine, MAX_PARAMETERS};
use super::probe::{BindCollector, CollectedProbe, MARKER, Places, QueriesProbe, count};

/// Up to this many binds the probe's statement is kept prepared.
const CACHED_BINDS: usize = 64;
/// The values that one probe of many queries reads at most.
const PROBED: usize = 1_024;

impl BindEngine {
    /// A query as text and plain values.
    pub(crate) fn capture<T>(&mut self, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let cacheable = query.is_safe_to_cache_prepared(&Sqlite)?;
        let sql = sql_of(query)?;
        let params = self.binds(query, &sql)?;
        Ok(Statement { sql, params, cacheable })
    }

    /// Many queries. Consecutive queries with one text become one statement.
    pub(crate) fn capture_all<T>(&mut self, queries: &[T]) -> QueryResult<Vec<Repeated>>
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
        let most = (PROBED / (width + 1)).max(1);
        let (mut alike, mut next) = (0, 1);
        while alike < queries.len() {
            let some = &queries[alike..queries.len().min(alike + next)];
            let same = count_with_text(&repeated.sql, some)?;
            // A query cannot be serialized, or binds more or fewer values than it has placeholders.
            if same == 0 || !self.binds_of_all(&some[..same], width, &mut repeated.params) {
                break;
            }
            repeated.times += same;
            alike += same;
            if same < some.len() {
                break;
            }
            // Grows while the texts are equal, so that little is compared in vain.
            next = most.min(next * 2);
        }
        Ok(alike)
    }

    /// Adds the values that the queries bind, `width` each, with one statement. `false`: nothing
    /// was added, and each query needs a statement of its own.
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
        let places = match queries {
            [_] => Places { count, cached: count <= CACHED_BINDS },
            // With more places than are needed, so that few such statements have to be prepared.
            _ => Places { count: count.next_power_of_two(), cached: count <= PROBED },
        };
        let mut at = 0;
        let result = self.probe(QueriesProbe { queries, places }, count, |value| {
            let is_marker = at % (width + 1) == width;
            at += 1;
            if (value == Value::Integer(MARKER)) != is_marker {
                return false;
            }
            if !is_marker {
                values.push(value);
            }
            true
        });
        result.is_ok_and(|complete| complete).then_some(())
    }

    /// The values that `query` binds. SQLite itself converts them: what comes back is what it would
    /// have stored.
    fn binds<T>(&mut self, query: &T, sql: &str) -> QueryResult<Vec<Value>>
    where
        T: QueryFragment<Sqlite>,
    {
        let places = sql.bytes().filter(|byte| *byte == b'?').count();
        let mut values = Vec::new();
        let usual = (1..MAX_PARAMETERS).contains(&places);
        if usual && self.binds_of_all(std::slice::from_ref(query), places, &mut values) {
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
        self.probe(CollectedProbe { binds, places }, count, |value| {
            values.push(value);
            true
        })?;
        Ok(values)
    }
}

/// The SQL text of a query.
pub(crate) fn sql_of<T: QueryFragment<Sqlite>>(query: &T) -> QueryResult<String> {
    let mut builder = SqliteQueryBuilder::new();
    query.to_sql(&mut builder, &Sqlite)?;
    Ok(builder.finish())
}

/// How many of the queries, from the first on, have this text. All are written into one string: one
/// for each would be made, grown and thrown away again.
fn count_with_text<T: QueryFragment<Sqlite>>(sql: &str, queries: &[T]) -> QueryResult<usize> {
    const END: char = '\0';
    let mut builder = SqliteQueryBuilder::new();
    for query in queries {
        query.to_sql(&mut builder, &Sqlite)?;
        builder.push_sql("\0");
    }
    let texts = builder.finish();
    // A text with such an end in itself is nothing that SQLite would run.
    if texts.bytes().filter(|byte| *byte == b'\0').count() != queries.len() {
        return Ok(0);
    }
    Ok(texts.split_terminator(END).take_while(|text| *text == sql).count())
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
        let all = BindEngine::default().capture_all(&queries).unwrap();
        let shape: Vec<_> = all.iter().map(|one| (one.times, one.params.len())).collect();
        assert_eq!(shape, [(1_000, 2_000), (2, 0), (1, 2)]);
        assert_eq!(all[0].params, integers((0..1_000).flat_map(|n| [n, -n])));
        assert_eq!(all[2].params, integers([7, 8]));
        assert!(BindEngine::default().capture_all(&queries[..0]).unwrap().is_empty());
    }

    #[test]
    fn values_stay_with_their_query_where_it_binds_more_or_fewer_than_it_has_places() {
        let sql = "INSERT INTO t VALUES (?, ?)";
        let mut engine = BindEngine::default();
        let mut captured = |binds: &[&[i32]]| -> Vec<Vec<Value>> {
            let queries: Vec<_> = binds.iter().map(|binds| query(sql, binds)).collect();
            let all = engine.capture_all(&queries).unwrap();
            all.iter().flat_map(|one| one.runs().map(<[Value]>::to_vec)).collect()
        };
        // What is bound stays bound in a prepared statement, so the second of each pair meets what
        // the first has left.
        for binds in [
            [&[1, 2][..], &[3, 4], &[5, 6], &[7, 8]],
            [&[1, 2][..], &[3, 4], &[5, 6], &[7]],
            // As many in all as there would have to be.
            [&[1, 2][..], &[3, 4], &[5], &[6, 7, 8]],
            [&[1][..], &[2, 3], &[4, 5], &[]],
        ] {
            assert_eq!(
                captured(&binds),
                binds.map(|binds| integers(binds.iter().map(|bind| i64::from(*bind))))
            );
        }
        for count in [100, 99, 101, 150, 0] {
            let binds: Vec<_> = (1..=count).collect();
            let many = query(&format!("SELECT {}", vec!["?"; 100].join(", ")), &binds);
            let params = BindEngine::default().capture(&many).unwrap().params;
            assert_eq!(params, integers((1..=count).map(i64::from)));
        }
        let null = diesel::sql_query("SELECT ?")
            .bind::<diesel::sql_types::Nullable<diesel::sql_types::Integer>, _>(None::<i32>);
        assert_eq!(BindEngine::default().capture(&null).unwrap().params, [Value::Null]);
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
        let statement = BindEngine::default().capture(&query).unwrap();
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
