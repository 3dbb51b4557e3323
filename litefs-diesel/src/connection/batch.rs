//! Many statements in one request.

use std::sync::Arc;

use diesel::connection::{Connection, InstrumentationEvent, LoadConnection, StrQueryHelper};
use diesel::deserialize::FromSqlRow;
use diesel::query_builder::QueryFragment;
use diesel::result::{Error, QueryResult};
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::{BoundQuery, collect};
use litefs_rpc::wire::{Answer, RowSet, Statement, Work};

use super::LiteFsConnection;
use super::destination::{Destination, Phase};
use crate::access::{Access, Class};
use crate::litefs::Shared;

impl LiteFsConnection {
    /// One row of a batch as text and values.
    pub(crate) fn capture_row<T: QueryFragment<Sqlite>>(&mut self, insert: &T) -> QueryResult<Statement> {
        let statement = self.scratch.capture(insert)?;
        Ok(Statement { cacheable: true, ..statement })
    }

    /// Runs the statements, all or none, in one round trip at most if no transaction has to be moved. Inserts into
    /// temporary tables cannot be mixed with others: the first statement tells where all of them belong.
    pub(crate) fn run_batch(&mut self, statements: Vec<Statement>, rows: bool) -> QueryResult<Answer> {
        let Some(first) = statements.first() else {
            return Ok(if rows { Answer::Rows(RowSet::default()) } else { Answer::Count(0) });
        };
        let Some((shared, _)) = self.clustered() else {
            return self.batch_here(&statements, rows);
        };
        let shared = Arc::clone(shared);
        self.follow_role(&shared)?;
        let class = self.class_of_text(first.sql.clone())?;
        let sql = first.sql.clone();
        let phase = self.phase();
        match self.destination(&shared, class, phase, &|| sql.clone()) {
            Destination::Local if class.writes_locally => {
                self.lifting_query_only(|conn| conn.batch_here(&statements, rows))
            }
            Destination::Local => {
                self.prepare_local(&shared, class)?;
                let result = self.batch_here(&statements, rows);
                match result {
                    Err(error) if self.was_demoted(&shared, class, &error) => {
                        self.run_batch(statements, rows)
                    }
                    result => result,
                }
            }
            Destination::Reject(reason) => Err(crate::Failure::Rejected.error(reason)),
            Destination::Lost => Err(self.transaction.lost()),
            Destination::Demoted => Err(self.demoted()),
            destination => self.batch_elsewhere(&shared, class, &destination, statements, rows),
        }
    }

    /// The user's instrumentation hears one query: the first row's, which stands for all.
    fn batch_elsewhere(
        &mut self,
        shared: &Arc<Shared>,
        class: Class,
        destination: &Destination,
        statements: Vec<Statement>,
        rows: bool,
    ) -> QueryResult<Answer> {
        let text = statements[0].sql.clone();
        let text = StrQueryHelper::new(&text);
        self.local.instrumentation().on_connection_event(InstrumentationEvent::start_query(&text));
        let work = Work::Batch { statements: statements.clone(), rows };
        let result = self.carry(shared, Access::Write, destination, work);
        let event = InstrumentationEvent::finish_query(&text, result.as_ref().err());
        self.local.instrumentation().on_connection_event(event);
        match result? {
            Some(reply) => {
                self.remember(class.counts, class.inserts, reply.effects);
                Ok(reply.answer)
            }
            None => {
                self.follow_role(shared)?;
                self.batch_here(&statements, rows)
            }
        }
    }

    fn batch_here(&mut self, statements: &[Statement], rows: bool) -> QueryResult<Answer> {
        self.last_forwarded = None;
        // Diesel's own way of inserting row by row: a transaction, or a savepoint in one.
        self.transaction(|conn| {
            if let (Phase::Pending, Some(shared)) = (conn.phase(), conn.home.clone()) {
                conn.begin_local(&shared)?;
            }
            let (mut count, mut all) = (0, RowSet::default());
            for statement in statements {
                let query = BoundQuery::new(&statement.sql, &statement.params, statement.cacheable);
                if !rows {
                    count += conn.local.execute_returning_count(&query)? as u64;
                    continue;
                }
                let mut more = collect(conn.local.load(query)?, usize::MAX)
                    .map_err(|refusal| crate::error::called(refusal.into(), None))?;
                all.columns = more.columns;
                all.values.append(&mut more.values);
            }
            Ok::<_, Error>(if rows { Answer::Rows(all) } else { Answer::Count(count) })
        })
    }

    /// Rows that came from elsewhere, deserialized as if they were read here.
    pub(crate) fn read_rows<ST, U: FromSqlRow<ST, Sqlite>>(&mut self, rows: RowSet) -> QueryResult<Vec<U>> {
        let build = |row| U::build_from_row(&row).map_err(Error::DeserializationError);
        self.scratch.replay(rows)?.map(|row| row.and_then(build)).collect()
    }
}
