//! Runs commands on the executor's connection.

use diesel::connection::SimpleConnection;
use litefs_core::Position;

use super::connection::ExecutorConnection;
use crate::executor::Done;
use crate::sqlite::error::{denied, from_diesel};
use crate::sqlite::run;
use crate::sqlite::sql::{SqlStatement, Verb, statements};
use crate::sqlite::text::{changes_rows, is_multi_statement};
use crate::wire::{Command, Output, Repeated, RowSet, ServerError, Statement, Value};

impl ExecutorConnection {
    /// Runs a command in the open transaction. A failure that leaves nothing applied, or that has
    /// ended the transaction, is an error. A failure that leaves a part applied is an output.
    /// `current` is as for [`replay`](Self::replay).
    pub(super) fn run_in_transaction(
        &mut self,
        work: &Command,
        current: Option<Position>,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        let mut before = self.total_changes;
        let result = match work {
            Command::Execute(statement) => self.execute(statement),
            Command::Insert(rows) => self.insert(rows, &mut before),
            Command::Query(statement) => return self.query(statement, max_rows),
            Command::Batch { statements, rows } => return self.batch(statements, *rows, max_rows),
            Command::Script(sql) => self.script(sql, &statements(sql)),
            Command::Transaction(record) => return self.replay(record, current, max_rows),
            Command::Call(call) => return self.call(call, max_rows),
        };
        if result.is_err() && !self.is_in_transaction() {
            return result;
        }
        if is_multi_statement(work) {
            self.partial_failure(result)
        } else {
            self.keep_partial_changes(result, before)
        }
    }

    /// A failed statement has left a part applied if `total_changes()` has grown since `before`:
    /// `OR FAIL`, `RAISE(FAIL)`.
    pub(super) fn keep_partial_changes(
        &mut self,
        result: Result<Done, ServerError>,
        before: i64,
    ) -> Result<Done, ServerError> {
        if !matches!(result, Err(ServerError::Database(_))) {
            return result;
        }
        if self.read_total_changes()? == before { result } else { self.partial_failure(result) }
    }

    /// Turns an error of SQLite after which a part is applied into an output.
    pub(super) fn partial_failure(
        &mut self,
        result: Result<Done, ServerError>,
    ) -> Result<Done, ServerError> {
        match result {
            Err(ServerError::Database(error)) => self.done(Output::Failed(error), None),
            result => result,
        }
    }

    pub(super) fn execute(&mut self, statement: &Statement) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let count = self.count(&statement.sql, &statement.params, statement.cacheable)?;
        self.done(Output::Count(count), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    pub(super) fn query(
        &mut self,
        statement: &Statement,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let rows = self.rows(&statement.sql, &statement.params, statement.cacheable, max_rows)?;
        self.done(Output::Rows(rows), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    /// Runs a query in its own transaction: if its rows exceed the limit, its change is rolled
    /// back.
    pub(super) fn query_alone(
        &mut self,
        statement: &Statement,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        // VACUUM and some PRAGMAs return rows but cannot run inside a transaction.
        if !changes_rows(&statement.sql) {
            return self.query(statement, max_rows);
        }
        self.in_own_transaction(|connection| connection.query(statement, max_rows))
    }

    /// Runs `work` in a transaction that takes the write lock, and commits it.
    pub(super) fn in_own_transaction(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<Done, ServerError>,
    ) -> Result<Done, ServerError> {
        self.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", work)
    }

    /// Runs `work` between `begin` and `end`, or undoes it.
    pub(super) fn atomically(
        &mut self,
        begin: &str,
        end: &str,
        undo: &str,
        work: impl FnOnce(&mut Self) -> Result<Done, ServerError>,
    ) -> Result<Done, ServerError> {
        self.sqlite.batch_execute(begin).map_err(from_diesel)?;
        let ended = work(self).and_then(|done| {
            self.sqlite.batch_execute(end).map_err(from_diesel)?;
            Ok(done)
        });
        if ended.is_err() {
            // Fails only if SQLite has rolled back already.
            let _ = self.sqlite.batch_execute(undo);
        }
        ended
    }

    /// Runs the statements of a batch in order. Stops at the first error; the caller rolls back.
    pub(super) fn batch(
        &mut self,
        statements: &[Repeated],
        rows: bool,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let answer = if rows {
            Output::Rows(self.batch_rows(statements, max_rows)?)
        } else {
            let mut counts = Vec::new();
            for repeated in statements {
                self.repeat(repeated, &mut counts)?;
            }
            Output::Counts(counts)
        };
        let counted = statements.iter().all(|statement| changes_rows(&statement.sql));
        self.done(answer, Some(before).filter(|_| counted))
    }

    /// The rows of all statements; the limit is on their sum.
    fn batch_rows(
        &mut self,
        statements: &[Repeated],
        max_rows: usize,
    ) -> Result<RowSet, ServerError> {
        run::batch_rows(&mut self.sqlite, statements, max_rows)
    }

    pub(super) fn count(
        &mut self,
        sql: &str,
        params: &[Value],
        cacheable: bool,
    ) -> Result<u64, ServerError> {
        run::count(&mut self.sqlite, sql, params, cacheable)
    }

    fn rows(
        &mut self,
        sql: &str,
        params: &[Value],
        cacheable: bool,
        max_rows: usize,
    ) -> Result<RowSet, ServerError> {
        run::rows(&mut self.sqlite, sql, params, cacheable, max_rows)
    }

    pub(super) fn script(
        &mut self,
        sql: &str,
        all: &[SqlStatement<'_>],
    ) -> Result<Done, ServerError> {
        let before = self.total_changes;
        self.sqlite.batch_execute(sql).map_err(from_diesel)?;
        if all.iter().any(|s| s.verb() == Verb::Begin)
            && self.sqlite.batch_execute("ROLLBACK").is_ok()
        {
            return Err(denied("the script leaves a transaction open; it was rolled back".into()));
        }
        let only_rows = all.iter().all(|s| matches!(s.verb(), Verb::Read | Verb::Change));
        self.done(Output::Done, Some(before).filter(|_| only_rows))
    }
}
