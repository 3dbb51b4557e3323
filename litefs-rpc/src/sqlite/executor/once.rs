//! Applies a write outside a transaction exactly once: its outcome is stored in the write's own
//! SQLite transaction.

use diesel::connection::SimpleConnection;
use litefs_core::Position;

use super::idempotency::Idempotency;
use super::{Positions, SqliteExecutor, no_connection};
use crate::executor::{CommitExpectation, Done};
use crate::sqlite::error::from_diesel;
use crate::sqlite::outcomes::{Outcomes, StoredOutcome};
use crate::sqlite::sql::statements;
use crate::sqlite::text::{alters_connection, is_multi_statement, only_reads};
use crate::wire::{Command, Delivery, Request, RequestId, ServerError, Settings};

impl SqliteExecutor {
    /// Runs a request as its [`Delivery`] says.
    pub(super) fn run_request(&mut self, request: &Request) -> Result<Done, ServerError> {
        let Request { id, delivery, again, settings, work } = request;
        self.check_autocommit(work)?;
        if *delivery == Delivery::AtMostOnce {
            return self.run_unrecorded(settings, work);
        }
        if *again && let Some(stored) = self.stored_result(*id)? {
            return stored;
        }
        let connection = self.connect(settings)?;
        match Idempotency::of(work) {
            Idempotency::SafeToRepeat => self.run_unrecorded(settings, work),
            Idempotency::SingleTransaction
                if connection.checks_at_commit(work).map_err(from_diesel)? =>
            {
                self.run_with_begin_record(request)
            }
            Idempotency::SingleTransaction => match self.run_in_one_transaction(request)? {
                Some(done) => Ok(done),
                None => self.run_with_begin_record(request),
            },
            Idempotency::BeginRecord => self.run_with_begin_record(request),
        }
    }

    /// Runs a command as it stands and stores no outcome.
    fn run_unrecorded(&mut self, settings: &Settings, work: &Command) -> Result<Done, ServerError> {
        let max_rows = self.max_rows;
        let positions = self.positions.clone();
        let connection = self.connect(settings)?;
        connection.mark_rowid(work)?;
        match work {
            Command::Execute(statement) => {
                let before = connection.total_changes;
                let result = connection.execute(statement);
                connection.keep_partial_changes(result, before)
            }
            Command::Query(statement) => connection.query_alone(statement, max_rows),
            Command::Script(sql) => self.run_unrecorded_script(sql),
            Command::Insert(_) | Command::Call(_) => connection.in_own_transaction(|connection| {
                connection.run_in_transaction(work, None, max_rows)
            }),
            Command::Transaction(record) => connection.in_own_transaction(|connection| {
                connection.replay(record, current_position(positions.as_ref(), work), max_rows)
            }),
            Command::Batch { statements, rows } => connection
                .in_own_transaction(|connection| connection.batch(statements, *rows, max_rows)),
        }
    }

    /// Runs a script, and closes the connection if the script failed or altered its state.
    fn run_unrecorded_script(&mut self, sql: &str) -> Result<Done, ServerError> {
        let connection = self.connection.as_mut().ok_or_else(no_connection)?;
        let all = statements(sql);
        let before = connection.total_changes;
        let result = connection.script(sql, &all);
        let result = if all.len() > 1 {
            connection.partial_failure(result)
        } else {
            connection.keep_partial_changes(result, before)
        };
        if result.as_ref().map_or(true, Done::failed) || all.iter().any(alters_connection) {
            self.closed = self.expectation();
            self.connection = None;
        }
        result
    }

    /// Runs a command in one transaction with the record of its outcome. `None`: nothing is
    /// applied, because a statement of the script has rolled back those before it (`OR ROLLBACK`).
    /// Outside of a transaction these would remain applied.
    fn run_in_one_transaction(&mut self, request: &Request) -> Result<Option<Done>, ServerError> {
        let max_rows = self.max_rows;
        let Self { connection, outcomes, positions, .. } = self;
        let connection = connection.as_mut().ok_or_else(no_connection)?;
        connection.mark_rowid(&request.work)?;
        // A statement that reads, according to its text, may call a function that writes.
        let begin = if only_reads(&request.work) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        connection.sqlite.batch_execute(begin).map_err(from_diesel)?;
        let current = current_position(positions.as_ref(), &request.work);
        let result = connection.run_in_transaction(&request.work, current, max_rows);
        if matches!(result, Err(ServerError::Database(_))) && is_multi_statement(&request.work) {
            return Ok(None);
        }
        let committed = result.and_then(|done| {
            // Work that has changed nothing may run again.
            let wrote =
                done.wrote != CommitExpectation::Unchanged && connection.native.is_writing();
            if wrote {
                connection.store_outcome(outcomes, request.id, &done)?;
            }
            connection.sqlite.batch_execute("COMMIT").map_err(from_diesel)?;
            Ok(done)
        });
        if committed.is_err() {
            // Fails only if SQLite has rolled back already.
            let _ = connection.sqlite.batch_execute("ROLLBACK");
        }
        match committed {
            // The id has an outcome already, which is the result.
            Err(ServerError::Fenced) => {
                self.stored_result(request.id)?.unwrap_or(Err(ServerError::Fenced)).map(Some)
            }
            committed => committed.map(Some),
        }
    }

    /// Runs a script with its own transactions between two writes to the table of outcomes: that
    /// it has begun, and its outcome.
    fn run_with_begin_record(&mut self, request: &Request) -> Result<Done, ServerError> {
        let Self { connection, outcomes, .. } = self;
        let connection = connection.as_mut().ok_or_else(no_connection)?;
        let begun = connection
            .write_outcome(|sqlite| outcomes.keep(sqlite, request.id, &StoredOutcome::Begun))?;
        if begun.is_none() {
            return self.stored_result(request.id)?.unwrap_or(Err(ServerError::Fenced));
        }
        let done = self.run_unrecorded(&request.settings, &request.work);
        let connection = self.connect(&request.settings)?;
        let done = connection.partial_failure(done)?;
        let outcome = StoredOutcome::Applied(done.answer.clone(), done.effects);
        let updated = connection.write_outcome(|sqlite| {
            Outcomes::update(sqlite, request.id, &outcome).map(|()| Some(1))
        });
        // The script has run, so the error must not say that it has not.
        updated.map_err(|refusal| {
            ServerError::unconfirmed(format!(
                "the script has run, but its outcome could not be recorded: {refusal}"
            ))
        })?;
        Ok(done)
    }

    fn stored_result(
        &mut self,
        id: RequestId,
    ) -> Result<Option<Result<Done, ServerError>>, ServerError> {
        self.connect(&Settings::default())?.stored_result(id)
    }
}

/// The position that the open transaction sees, where the command asks for it. The write lock is
/// held, so no other connection moves it.
fn current_position(positions: Option<&Positions>, work: &Command) -> Option<Position> {
    let Command::Transaction(record) = work else { return None };
    record.snapshot.and_then(|_| positions.and_then(|read| read()))
}
