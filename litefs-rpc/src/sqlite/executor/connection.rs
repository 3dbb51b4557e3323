//! The executor's connection and the state that is known of it.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use crate::executor::{CommitExpectation, Done};
use crate::sqlite::error::from_diesel;
use crate::sqlite::functions::application_functions;
use crate::sqlite::native::{Native, Opened};
use crate::sqlite::outcomes::{Outcomes, StoredOutcome};
use crate::sqlite::procedure::Procedures;
use crate::sqlite::session::{integers, read_settings, session_functions};
use crate::sqlite::text::{is_multi_statement, needs_rowid_mark};
use crate::wire::{Command, Output, RequestId, ServerError, SessionCounters, Settings};

/// No table has this rowid: SQLite itself assigns none below 1.
const UNUSED_ROWID: i64 = i64::MIN + 1;

/// A connection and the state that is known of it.
pub(super) struct ExecutorConnection {
    pub(super) sqlite: SqliteConnection,
    pub(super) native: Native,
    settings: Settings,
    /// `total_changes()` after the last command.
    pub(super) total_changes: i64,
    /// `total_changes()` at BEGIN, while its growth tells whether the transaction wrote.
    pub(super) total_at_begin: Option<i64>,
    /// `last_insert_rowid()` was set to [`UNUSED_ROWID`] before the current command.
    rowid_marked: bool,
    /// Reported instead of SQLite's `changes()`, while SQLite reports this `changes()` and this
    /// `total_changes()`.
    pub(super) changes_override: Option<([i64; 2], i64)>,
    /// The work has changed state of the connection: close it after the transaction.
    pub(super) altered: bool,
    /// The application has functions that may write, called in a SELECT too.
    pub(super) may_write_in_reads: bool,
    pub(super) procedures: Arc<Procedures>,
}

impl ExecutorConnection {
    pub(super) fn new(
        Opened { connection: mut sqlite, native }: Opened,
        procedures: Arc<Procedures>,
    ) -> QueryResult<Self> {
        let settings = read_settings(&mut sqlite)?;
        let may_write_in_reads = !application_functions(&mut sqlite)?.is_empty();
        Ok(Self {
            may_write_in_reads,
            sqlite,
            native,
            settings,
            total_changes: 0,
            total_at_begin: None,
            rowid_marked: false,
            changes_override: None,
            altered: false,
            procedures,
        })
    }

    /// Sets the PRAGMAs that differ from the wanted ones.
    pub(super) fn apply(&mut self, wanted: &Settings) -> QueryResult<()> {
        let have = self.settings;
        for (name, want, is) in [
            ("foreign_keys", wanted.foreign_keys, have.foreign_keys),
            ("recursive_triggers", wanted.recursive_triggers, have.recursive_triggers),
            (
                "ignore_check_constraints",
                wanted.ignore_check_constraints,
                have.ignore_check_constraints,
            ),
            ("legacy_alter_table", wanted.legacy_alter_table, have.legacy_alter_table),
        ] {
            if want != is {
                self.pragma(name, want)?;
            }
        }
        self.settings = *wanted;
        Ok(())
    }

    pub(super) fn pragma(&mut self, name: &str, on: bool) -> QueryResult<()> {
        self.sqlite.batch_execute(&format!("PRAGMA {name} = {}", if on { "ON" } else { "OFF" }))
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        !self.native.is_autocommit()
    }

    /// Whether the schema has foreign keys that SQLite checks at the end of a transaction.
    pub(super) fn has_deferred_keys(&mut self) -> QueryResult<bool> {
        const DEFERRED: &str =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%INITIALLY%DEFERRED%')";
        if !self.settings.foreign_keys {
            return Ok(false);
        }
        let [found] = integers(&mut self.sqlite, DEFERRED)?;
        Ok(found != 0)
    }

    /// Whether a common transaction would defer checks that a script's statements have one by one.
    pub(super) fn checks_at_commit(&mut self, work: &Command) -> QueryResult<bool> {
        if is_multi_statement(work) { self.has_deferred_keys() } else { Ok(false) }
    }

    /// Sets `last_insert_rowid()` to [`UNUSED_ROWID`] if the command needs that.
    pub(super) fn mark_rowid(&mut self, work: &Command) -> Result<(), ServerError> {
        if !needs_rowid_mark(work) {
            return Ok(());
        }
        let mark = format!(
            "INSERT OR REPLACE INTO temp.litefs_rowid (rowid, x) VALUES ({UNUSED_ROWID}, 0)"
        );
        if self.sqlite.batch_execute(&mark).is_err() {
            let create = "CREATE TEMP TABLE IF NOT EXISTS litefs_rowid (x)";
            self.sqlite.batch_execute(&format!("{create}; {mark}")).map_err(from_diesel)?;
        }
        self.total_changes = self.read_total_changes()?;
        self.rowid_marked = true;
        Ok(())
    }

    pub(super) fn read_total_changes(&mut self) -> Result<i64, ServerError> {
        let [_, _, total] = session_functions(&mut self.sqlite).map_err(from_diesel)?;
        Ok(total)
    }

    /// Excludes what failed work added to `total_changes()` from the next command's counters.
    pub(super) fn resync_counters(&mut self) -> Result<(), ServerError> {
        self.rowid_marked = false;
        self.total_changes = self.read_total_changes()?;
        Ok(())
    }

    /// Stores the outcome of the open transaction. [`ServerError::Fenced`]: the id has one already.
    pub(super) fn store_outcome(
        &mut self,
        outcomes: &mut Outcomes,
        id: RequestId,
        done: &Done,
    ) -> Result<(), ServerError> {
        let kept = StoredOutcome::Applied(done.answer.clone(), done.effects);
        let stored = self.write_outcome(|sqlite| outcomes.keep(sqlite, id, &kept))?;
        stored.map(drop).ok_or(ServerError::Fenced)
    }

    /// Writes to the table of outcomes, and excludes that from the counters of the session.
    pub(super) fn write_outcome(
        &mut self,
        write: impl FnOnce(&mut SqliteConnection) -> QueryResult<Option<i64>>,
    ) -> Result<Option<i64>, ServerError> {
        let added = write(&mut self.sqlite).map_err(from_diesel)?;
        self.total_changes += added.unwrap_or(0);
        Ok(added)
    }

    /// The stored outcome of a write, as the result to return again.
    pub(super) fn stored_result(
        &mut self,
        id: RequestId,
    ) -> Result<Option<Result<Done, ServerError>>, ServerError> {
        let stored = Outcomes::find(&mut self.sqlite, id).map_err(from_diesel)?;
        Ok(stored.map(|stored| match stored {
            StoredOutcome::Applied(answer, effects) => {
                Ok(Done { answer, effects, wrote: CommitExpectation::Unchanged })
            }
            StoredOutcome::Begun => Err(ServerError::Interrupted),
            StoredOutcome::Fenced => Err(ServerError::Fenced),
        }))
    }

    /// Completes a command: reads the session counters. `before` is `total_changes()` before the
    /// command, if its growth tells whether anything was written.
    pub(super) fn done(
        &mut self,
        answer: Output,
        before: Option<i64>,
    ) -> Result<Done, ServerError> {
        let [last_insert_rowid, changes, total] =
            session_functions(&mut self.sqlite).map_err(from_diesel)?;
        self.changes_override = self.changes_override.filter(|(said, _)| *said == [changes, total]);
        let changes = self.changes_override.map_or(changes, |(_, changes)| changes);
        let wrote = if before == Some(total) {
            CommitExpectation::Unchanged
        } else {
            CommitExpectation::Advances
        };
        let marked = std::mem::take(&mut self.rowid_marked);
        let inserted = if marked { last_insert_rowid != UNUSED_ROWID } else { changes > 0 };
        let effects = SessionCounters {
            last_insert_rowid,
            changes,
            total_changes: total - self.total_changes,
            inserted,
        };
        self.total_changes = total;
        Ok(Done { answer, effects, wrote })
    }
}

impl std::fmt::Debug for ExecutorConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutorConnection").field("altered", &self.altered).finish_non_exhaustive()
    }
}
