//! Several requests in one transaction, each with the result it would have had alone.
//!
//! Alone, a statement that fails is undone by SQLite, and so it is within a transaction: no savepoint is needed around it.
//! A batch has one of its own. Everything else in which a common transaction could make a difference is kept out of one
//! (DDL, PRAGMAs, scripts, schemas with deferred keys) or breaks it up ([`GroupAborted`]): then nothing of the group is applied
//! and its requests run one by one. Breaking up needs no foresight, so it also serves for what cannot be seen in a
//! statement, such as a trigger with `RAISE(ROLLBACK)`.

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;

use super::executor::SqliteExecutor;
use super::once::Idempotency;
use super::ready::{Ready, changes_rows};
use crate::executor::{CommitExpectation, Done, GroupAborted};
use crate::wire::{Command, Delivery, Request, ServerError, Settings};

/// Texts of statements that broke a group up. An application has few of them; one that has more starts anew.
const MAX_SOLITARY: usize = 256;

impl SqliteExecutor {
    /// Statements that change rows, one by one or in a batch.
    pub(super) fn may_be_shared(&mut self, request: &Request) -> bool {
        let work = &request.work;
        let changes = match work {
            Command::Execute(statement) | Command::Query(statement) => changes_rows(&statement.sql),
            Command::Insert(rows) => changes_rows(&rows.sql),
            Command::Batch { statements, .. } => statements.iter().all(|s| changes_rows(&s.sql)),
            Command::Script(_) => false,
        };
        let solitary = !self.solitary.is_empty() && work.texts().any(|sql| self.solitary.contains(sql));
        changes && !solitary && self.check_alone(work).is_ok() && Idempotency::of(work) == Idempotency::Whole
    }

    pub(super) fn begin_group(&mut self, settings: &Settings) -> Result<bool, ServerError> {
        let ready = self.ready(settings)?;
        // Checked when the group is committed, what is missing for one might have been brought by another.
        if ready.has_deferred_keys().map_err(super::from_diesel)? {
            return Ok(false);
        }
        ready.connection.batch_execute("BEGIN IMMEDIATE").map_err(super::from_diesel)?;
        Ok(true)
    }

    pub(super) fn run_in_group(
        &mut self,
        request: &Request,
    ) -> Result<Result<Done, ServerError>, GroupAborted> {
        let max_rows = self.max_rows;
        let ready = self.connection.as_mut().ok_or(GroupAborted)?;
        if request.again && request.delivery == Delivery::ExactlyOnce {
            match ready.kept(request.id) {
                Ok(None) => {}
                Ok(Some(kept)) => return Ok(kept),
                Err(_) => return Err(GroupAborted),
            }
        }
        let result = ready.member(&request.work, max_rows);
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
        let ready = connection.as_mut().ok_or(GroupAborted)?;
        // Somebody was faster, or the disk is full: each finds out by itself.
        ready.keep(outcomes, request.id, &done).map_err(|_| GroupAborted)?;
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
            Command::Script(_) => {}
        }
    }

    pub(super) fn commit_group(&mut self) -> Result<(), GroupAborted> {
        let ready = self.connection.as_mut().ok_or(GroupAborted)?;
        ready.connection.batch_execute("COMMIT").map_err(|_| GroupAborted)
    }
}

impl Ready {
    /// Runs the work of one request in the group's transaction.
    fn member(&mut self, work: &Command, max_rows: usize) -> Result<Result<Done, ServerError>, GroupAborted> {
        self.mark_rowid(work).map_err(|_| GroupAborted)?;
        let before = self.total_changes;
        let result = match work {
            Command::Query(statement) => self.query(statement, max_rows),
            Command::Batch { statements, rows } => self.atomically(
                "SAVEPOINT litefs_one",
                "RELEASE litefs_one",
                "ROLLBACK TO litefs_one; RELEASE litefs_one",
                |ready| ready.batch(statements, *rows, max_rows),
            ),
            _ => self.part_or_all(work, max_rows),
        };
        let Err(refusal) = &result else { return Ok(result) };
        let undone = match work {
            // Its rows were too many or could not be read: the change behind them stands, or a part of it.
            Command::Query(_) => self.read_total_changes() == Ok(before),
            _ => true,
        };
        if refusal.symptom().is_suspicious() || !undone || !self.is_in_transaction() {
            return Err(GroupAborted);
        }
        self.forget_changes().map_err(|_| GroupAborted)?;
        Ok(result)
    }

    /// Whether the schema has keys that SQLite checks at the end of a transaction.
    pub(super) fn has_deferred_keys(&mut self) -> QueryResult<bool> {
        const DEFERRED: &str =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%INITIALLY%DEFERRED%')";
        if !self.settings.foreign_keys {
            return Ok(false);
        }
        let [found] = super::ready::integers(&mut self.connection, DEFERRED)?;
        Ok(found != 0)
    }
}
