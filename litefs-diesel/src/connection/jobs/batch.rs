//! Many statements in one request.

use std::sync::Arc;

use diesel::connection::{Connection, LoadConnection, StrQueryHelper};
use diesel::deserialize::FromSqlRow;
use diesel::query_builder::QueryFragment;
use diesel::result::{Error, QueryResult};
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::sql::{Verb, statements};
use litefs_rpc::sqlite::{BoundQuery, collect};
use litefs_rpc::wire::{Command, Output, Repeated, RowSet};

use super::super::LiteFsConnection;
use super::super::decide::destination::Destination;
use super::super::decide::phase::Phase;
use super::super::driver::Job;
use super::super::errors::{refusal, unexpected};
use super::super::local::is_writable;
use crate::access::Class;
use crate::error::called;
use crate::failure::Failure;
use crate::node::Node;

/// A batch is a transaction, so it contains no statement that controls one.
fn check_batchable(sql: &str) -> QueryResult<()> {
    match statements(sql).as_slice() {
        [one]
            if matches!(
                one.verb(),
                Verb::Read | Verb::Change | Verb::Schema | Verb::TempSchema | Verb::Unknown
            ) =>
        {
            Ok(())
        }
        _ => Err(Failure::Denied.error(format!(
            "a batch is a transaction of single statements that read or change tables, so \
             {sql:?} cannot be in it"
        ))),
    }
}

struct BatchJob {
    statements: Arc<[Repeated]>,
    /// Whether the rows that the statements return are wanted, instead of their counts.
    rows: bool,
}

impl Job for BatchJob {
    type Done = Output;
    const MAY_BE_GROUPED: bool = true;

    fn sql(&self) -> QueryResult<String> {
        let texts: Vec<_> =
            self.statements.iter().map(|statement| statement.sql.as_str()).collect();
        Ok(texts.join(";"))
    }

    fn command(&self, _: &mut LiteFsConnection, _: Class) -> QueryResult<Option<Command>> {
        let statements = Arc::clone(&self.statements);
        Ok(Some(Command::Batch { statements, rows: self.rows }))
    }

    fn run_here(&mut self, conn: &mut LiteFsConnection, _: Class) -> QueryResult<Output> {
        conn.batch_here(&self.statements, self.rows)
    }

    /// The application's instrumentation sees one query: the first statement's text stands for all.
    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<Output>> {
        let text = self.statements[0].sql.clone();
        let command = Command::Batch { statements: Arc::clone(&self.statements), rows: self.rows };
        let reply = conn.reporting_text(&StrQueryHelper::new(&text), |conn| {
            conn.dispatch(node, class, destination, command)
        })?;
        Ok(reply.map(|reply| reply.answer))
    }
}

impl LiteFsConnection {
    /// Runs several statements, all or none of them, at the cost of one: on a replica BEGIN, the
    /// statements and COMMIT travel in one request. Within a transaction they run behind a
    /// savepoint, and only they are undone if one fails. Returns how many rows each has changed.
    ///
    /// Rows that statements return are dropped; [`BatchInsertDsl`](crate::BatchInsertDsl) gives
    /// those of inserts.
    ///
    /// # Errors
    /// What the first failing statement gives; nothing is applied then.
    /// [`Failure::Denied`] for BEGIN, COMMIT and the like, and for PRAGMAs
    /// that set something.
    ///
    /// ```
    /// use diesel::connection::SimpleConnection;
    /// use diesel::prelude::*;
    /// use litefs_diesel::LiteFsConnection;
    ///
    /// diesel::table! { accounts { id -> Integer, balance -> Integer, } }
    ///
    /// # let mut conn = LiteFsConnection::establish(":memory:")?;
    /// # conn.batch_execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")?;
    /// use accounts::{balance, id};
    /// let changed = conn.execute_batch(&[
    ///     &diesel::insert_into(accounts::table).values((id.eq(1), balance.eq(100))),
    ///     &diesel::insert_into(accounts::table).values((id.eq(2), balance.eq(0))),
    ///     &diesel::update(accounts::table.find(1)).set(balance.eq(balance - 40)),
    ///     &diesel::update(accounts::table.find(2)).set(balance.eq(balance + 40)),
    /// ])?;
    /// assert_eq!(changed, [1, 1, 1, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn execute_batch(
        &mut self,
        queries: &[&dyn QueryFragment<Sqlite>],
    ) -> QueryResult<Vec<usize>> {
        let statements = self.bind.capture_all(queries)?;
        statements.iter().try_for_each(|statement| check_batchable(&statement.sql))?;
        match self.run_batch(statements, false)? {
            Output::Counts(counts) => Ok(counts
                .into_iter()
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// The rows of a batch as text and values.
    pub(crate) fn capture_rows<T: QueryFragment<Sqlite>>(
        &mut self,
        inserts: &[T],
    ) -> QueryResult<Vec<Repeated>> {
        let mut captured = self.bind.capture_all(inserts)?;
        captured.iter_mut().for_each(|repeated| repeated.cacheable = true);
        Ok(captured)
    }

    /// Runs the statements, all or none, in one round trip at most if no transaction has to be
    /// moved.
    pub(crate) fn run_batch(
        &mut self,
        mut statements: Vec<Repeated>,
        rows: bool,
    ) -> QueryResult<Output> {
        if statements.is_empty() {
            return Ok(if rows {
                Output::Rows(RowSet::default())
            } else {
                Output::Counts(Vec::new())
            });
        }
        let Some((node, _)) = self.remote.clustered() else {
            let result = self.batch_here(&statements, rows);
            self.transaction.note_conflict(&result);
            return result;
        };
        let node = Arc::clone(node);
        self.run_held_back(&node)?;
        self.answer_batch(&node, &mut statements)?;
        let statements: Arc<[Repeated]> = statements.into();
        let class = self.class_of_batch(&statements)?;
        self.drive(&node, class, &mut BatchJob { statements, rows })
    }

    fn answer_batch(&mut self, node: &Node, statements: &mut Vec<Repeated>) -> QueryResult<()> {
        let mut classes = Vec::with_capacity(statements.len());
        for repeated in &*statements {
            classes.push(self.class_of_text(&repeated.sql));
        }
        if !classes.iter().any(|class| class.asks_session) {
            return Ok(());
        }
        // Only the first run of a statement may come before the first write.
        let classes: Vec<_> =
            statements.iter().zip(classes).flat_map(|(r, c)| vec![c; r.times]).collect();
        *statements = std::mem::take(statements).into_iter().flat_map(Repeated::split).collect();
        let texts: Vec<_> =
            statements.iter().map(|repeated| repeated.sql.as_str()).zip(classes).collect();
        if let Some(answered) =
            self.session.answer_before_writes(&mut self.local, is_writable(node), &texts)?
        {
            for (repeated, sql) in statements.iter_mut().zip(answered) {
                repeated.cacheable &= repeated.sql == sql;
                repeated.sql = sql;
            }
        }
        Ok(())
    }

    /// One class for all statements: they run in one place or are refused.
    fn class_of_batch(&mut self, statements: &[Repeated]) -> QueryResult<Class> {
        let mut all = Class { single: true, ..Class::NOTHING };
        for repeated in statements {
            let class = self.class_of_text(&repeated.sql);
            if class.refused {
                return Err(refusal(&repeated.sql));
            }
            all = all.with(class);
        }
        Ok(all)
    }

    /// Runs the statements behind a savepoint, which outside of a transaction begins one.
    fn batch_here(&mut self, statements: &[Repeated], rows: bool) -> QueryResult<Output> {
        let muted = self.local.mute();
        self.local.batch_execute("SAVEPOINT litefs_batch")?;
        drop(muted);
        let result = self.batch_statements(statements, rows);
        let _muted = self.local.mute();
        let result = result.and_then(|answer| {
            self.local.batch_execute("RELEASE litefs_batch")?;
            Ok(answer)
        });
        if result.is_err() {
            let undone = self.local.batch_execute("ROLLBACK TO litefs_batch; RELEASE litefs_batch");
            let open = self.phase() != Phase::Autocommit;
            if undone.is_err() && open {
                // `OR ROLLBACK`, for example.
                self.transaction.lose(
                    "SQLite has rolled it back, because a statement of a batch said so or had to",
                );
            }
        }
        result
    }

    fn batch_statements(&mut self, statements: &[Repeated], rows: bool) -> QueryResult<Output> {
        let (mut counts, mut all) = (Vec::new(), RowSet::default());
        for repeated in statements {
            for params in repeated.runs() {
                let query = BoundQuery::new(&repeated.sql, params, repeated.cacheable);
                if !rows {
                    counts.push(self.local.sqlite().execute_returning_count(&query)? as u64);
                    continue;
                }
                let mut more = collect(self.local.sqlite().load(query)?, usize::MAX)
                    .map_err(|refusal| called(refusal.into(), None))?;
                if all.columns.is_empty() {
                    all.columns = more.columns;
                }
                all.values.append(&mut more.values);
            }
        }
        Ok(if rows { Output::Rows(all) } else { Output::Counts(counts) })
    }

    /// Deserializes rows that were read elsewhere.
    pub(crate) fn read_rows<ST, U: FromSqlRow<ST, Sqlite>>(
        &mut self,
        rows: RowSet,
    ) -> QueryResult<Vec<U>> {
        let build = |row| U::build_from_row(&row).map_err(Error::DeserializationError);
        self.bind.replay(rows)?.map(|row| row.and_then(build)).collect()
    }
}
