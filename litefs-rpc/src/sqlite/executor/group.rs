//! Several requests in one transaction, each with the result that it would have had alone.
//!
//! SQLite undoes a failed statement by itself, inside a transaction too, so a statement needs no
//! savepoint. A batch has its own. A request for which the common transaction could make a
//! difference is not admitted to a group (DDL, PRAGMAs, scripts, schemas with deferred keys), or
//! aborts it ([`GroupAborted`]): then nothing of the group is applied and its requests run one by
//! one. Aborting also covers what the text does not show, such as a trigger with `RAISE(ROLLBACK)`.

use diesel::connection::SimpleConnection;

use super::SqliteExecutor;
use super::connection::ExecutorConnection;
use super::{idempotency::Idempotency, replay};
use crate::executor::{CommitExpectation, Done, GroupAborted};
use crate::sqlite::error::from_diesel;
use crate::sqlite::text::changes_rows;
use crate::wire::{Command, Delivery, Request, ServerError, Settings};

/// The most texts remembered of statements that aborted a group; at the limit all are forgotten.
const MAX_SOLITARY: usize = 256;

impl SqliteExecutor {
    /// Statements that change rows, one by one or in a batch.
    pub(super) fn may_be_shared(&mut self, request: &Request) -> bool {
        let work = &request.work;
        let changes = match work {
            Command::Execute(statement) | Command::Query(statement) => changes_rows(&statement.sql),
            Command::Insert(rows) => changes_rows(&rows.sql),
            Command::Batch { statements, .. } => statements.iter().all(|s| changes_rows(&s.sql)),
            Command::Transaction(record) => replay::may_share(record),
            // A procedure may set PRAGMAs and nest transactions.
            Command::Script(_) | Command::Call(_) => false,
        };
        let solitary =
            !self.solitary.is_empty() && work.texts().any(|sql| self.solitary.contains(sql));
        changes
            && !solitary
            && self.check_autocommit(work).is_ok()
            && Idempotency::of(work) == Idempotency::SingleTransaction
    }

    pub(super) fn begin_group(&mut self, settings: &Settings) -> Result<bool, ServerError> {
        let connection = self.connect(settings)?;
        // A deferred key is checked at COMMIT, when a row of another request could satisfy it.
        if connection.has_deferred_keys().map_err(from_diesel)? {
            return Ok(false);
        }
        connection.sqlite.batch_execute("BEGIN IMMEDIATE").map_err(from_diesel)?;
        Ok(true)
    }

    pub(super) fn run_in_group(
        &mut self,
        request: &Request,
    ) -> Result<Result<Done, ServerError>, GroupAborted> {
        let max_rows = self.max_rows;
        let connection = self.connection.as_mut().ok_or(GroupAborted)?;
        if request.again && request.delivery == Delivery::ExactlyOnce {
            match connection.stored_result(request.id) {
                Ok(None) => {}
                Ok(Some(stored)) => return Ok(stored),
                Err(_) => return Err(GroupAborted),
            }
        }
        let result = connection.run_member(&request.work, max_rows);
        let done = match result {
            Ok(Ok(done)) => done,
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            Err(GroupAborted) => {
                self.remember_solitary(&request.work);
                return Err(GroupAborted);
            }
        };
        if request.delivery == Delivery::AtMostOnce || done.wrote == CommitExpectation::Unchanged {
            return Ok(Ok(done));
        }
        let Self { connection, outcomes, .. } = self;
        let connection = connection.as_mut().ok_or(GroupAborted)?;
        // The id has an outcome already, or the disk is full: each request finds out alone.
        connection.store_outcome(outcomes, request.id, &done).map_err(|_| GroupAborted)?;
        Ok(Ok(done))
    }

    fn remember_solitary(&mut self, work: &Command) {
        if self.solitary.len() >= MAX_SOLITARY {
            self.solitary.clear();
        }
        let kept = |cacheable: bool, sql: &str| cacheable.then(|| sql.to_owned());
        match work {
            Command::Execute(statement) | Command::Query(statement) => {
                self.solitary.extend(kept(statement.cacheable, &statement.sql));
            }
            Command::Insert(rows) => self.solitary.extend(kept(rows.cacheable, &rows.sql)),
            Command::Batch { statements, .. } => {
                self.solitary.extend(statements.iter().filter_map(|s| kept(s.cacheable, &s.sql)));
            }
            // The texts come back in other transactions, where they may do no harm.
            Command::Script(_) | Command::Transaction(_) | Command::Call(_) => {}
        }
    }

    pub(super) fn commit_group(&mut self) -> Result<(), GroupAborted> {
        let connection = self.connection.as_mut().ok_or(GroupAborted)?;
        connection.sqlite.batch_execute("COMMIT").map_err(|_| GroupAborted)
    }
}

impl ExecutorConnection {
    /// Runs the command of one request in the group's transaction.
    fn run_member(
        &mut self,
        work: &Command,
        max_rows: usize,
    ) -> Result<Result<Done, ServerError>, GroupAborted> {
        self.mark_rowid(work).map_err(|_| GroupAborted)?;
        let before = self.total_changes;
        let result = match work {
            Command::Query(statement) => self.query(statement, max_rows),
            Command::Batch { statements, rows } => self.atomically(
                "SAVEPOINT litefs_one",
                "RELEASE litefs_one",
                "ROLLBACK TO litefs_one; RELEASE litefs_one",
                |connection| connection.batch(statements, *rows, max_rows),
            ),
            Command::Transaction(record) => {
                self.sqlite.batch_execute("SAVEPOINT litefs_one").map_err(|_| GroupAborted)?;
                let result = self.replay(record, None, max_rows);
                let end = match result {
                    Ok(_) => "RELEASE litefs_one",
                    Err(_) => "ROLLBACK TO litefs_one; RELEASE litefs_one",
                };
                // Fails if a statement has ended the transaction.
                self.sqlite.batch_execute(end).map_err(|_| GroupAborted)?;
                result
            }
            _ => self.run_in_transaction(work, None, max_rows),
        };
        let Err(refusal) = &result else { return Ok(result) };
        let undone = match work {
            // If its rows exceed the limit or cannot be read, the change behind them may remain.
            Command::Query(_) => self.read_total_changes() == Ok(before),
            _ => true,
        };
        if refusal.symptom().is_suspicious() || !undone || !self.is_in_transaction() {
            return Err(GroupAborted);
        }
        self.resync_counters().map_err(|_| GroupAborted)?;
        Ok(result)
    }
}
