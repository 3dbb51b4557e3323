//! A transaction that another node has opened: BEGIN, its statements, COMMIT or ROLLBACK.

use diesel::connection::SimpleConnection;

use super::connection::ExecutorConnection;
use super::{SqliteExecutor, check};
use crate::executor::{CommitExpectation, Done};
use crate::sqlite::error::{from_diesel, other};
use crate::sqlite::functions::MAKES_A_TRIGGER;
use crate::sqlite::guard::Scope;
use crate::sqlite::outcomes::Outcomes;
use crate::sqlite::sql::{SqlStatement, Verb, statements};
use crate::sqlite::text::alters_connection;
use crate::wire::{BeginMode, Command, Output, RequestId, ServerError, SessionCounters, Settings};

const SAVE_OUTCOME: &str = "SAVEPOINT litefs_outcome";
const UNDO_OUTCOME: &str = "ROLLBACK TO litefs_outcome; RELEASE litefs_outcome";

impl SqliteExecutor {
    pub(super) fn begin_transaction(
        &mut self,
        settings: &Settings,
        mode: BeginMode,
    ) -> Result<(), ServerError> {
        let begin = match mode {
            BeginMode::Immediate => "BEGIN IMMEDIATE",
            BeginMode::Exclusive => "BEGIN EXCLUSIVE",
        };
        let connection = self.connect(settings)?;
        if let Err(error) = connection.sqlite.batch_execute(begin) {
            let refusal = from_diesel(error);
            if refusal.symptom().is_suspicious() {
                self.connection = None;
            }
            return Err(refusal);
        }
        connection.total_at_begin = Some(connection.total_changes);
        // SQLite resets this PRAGMA at each COMMIT, so it is set inside the transaction.
        let defer = settings.defer_foreign_keys;
        connection.pragma("defer_foreign_keys", defer).map_err(from_diesel)
    }

    pub(super) fn run_step(&mut self, work: &Command) -> Result<Done, ServerError> {
        check(work, Scope::Transaction)?;
        let max_rows = self.max_rows;
        let positions = self.positions.clone();
        let connection = self.connection.as_mut().ok_or_else(no_transaction)?;
        connection.prepare_step(work)?;
        match work {
            Command::Execute(statement) => connection.execute(statement),
            Command::Query(statement) => connection.query(statement, max_rows),
            Command::Insert(rows) => {
                let mut before = connection.total_changes;
                connection.insert(rows, &mut before)
            }
            Command::Script(sql) => connection.script(sql, &statements(sql)),
            Command::Call(call) => connection.call(call, max_rows),
            Command::Batch { statements, rows } => connection.atomically(
                "SAVEPOINT litefs_batch",
                "RELEASE litefs_batch",
                "ROLLBACK TO litefs_batch; RELEASE litefs_batch",
                |connection| connection.batch(statements, *rows, max_rows),
            ),
            Command::Transaction(record) => {
                let current = record.snapshot.and_then(|_| positions.and_then(|read| read()));
                let replayed = connection.replay(record, current, max_rows);
                let refused = |_: &ServerError| {
                    // Nothing of the record may remain. Fails only if SQLite has rolled back.
                    let _ = connection.sqlite.batch_execute("ROLLBACK");
                };
                let done = replayed.inspect_err(refused)?;
                match &record.next {
                    Some(next) => {
                        let inserted = record.steps.iter().any(|step| inserts(&step.work));
                        let before = Some(done.effects).filter(|e| inserted && e.inserted);
                        self.run_step(next).map(|done| after_insert(done, next, before))
                    }
                    None => Ok(done),
                }
            }
        }
    }

    pub(super) fn commit_transaction(
        &mut self,
        keep: Option<RequestId>,
    ) -> Result<Done, ServerError> {
        self.watch_commits();
        let Self { connection, outcomes, .. } = self;
        let connection = connection.as_mut().ok_or_else(no_transaction)?;
        let done = connection.done(Output::Done, connection.total_at_begin)?;
        let keep = keep.filter(|_| done.wrote != CommitExpectation::Unchanged);
        if let Some(id) = keep {
            connection.store_commit_outcome(outcomes, id, &done)?;
        }
        let committed = connection.sqlite.batch_execute("COMMIT").map_err(from_diesel);
        if committed.is_err() && keep.is_some() {
            // The transaction stays open, without the record. Fails only if SQLite has rolled back.
            let _ = connection.sqlite.batch_execute(UNDO_OUTCOME);
        }
        let altered = connection.altered;
        let wrote = self.expectation();
        if committed.is_ok() && altered {
            self.connection = None;
        }
        if committed.is_ok() && wrote != CommitExpectation::Unchanged {
            self.report_commit();
        }
        committed.map(|()| Done { wrote, ..done })
    }

    pub(super) fn rollback_transaction(&mut self) {
        // A connection that cannot roll back is closed, and then SQLite rolls back.
        if let Some(mut connection) = self.connection.take()
            && !connection.altered
            && connection.sqlite.batch_execute("ROLLBACK").is_ok()
            && connection.resync_counters().is_ok()
        {
            self.connection = Some(connection);
        }
    }
}

impl ExecutorConnection {
    /// Notes what the command does to the counters and to the connection's own state.
    fn prepare_step(&mut self, work: &Command) -> Result<(), ServerError> {
        let counted = |s: &SqlStatement<'_>| match s.verb() {
            // What it calls may write, and then `total_changes()` may stay as it is.
            Verb::Read => !self.may_write_in_reads && !s.calls(MAKES_A_TRIGGER),
            verb => matches!(verb, Verb::Change | Verb::Savepoint),
        };
        let is_call = matches!(work, Command::Call(_));
        if is_call || !work.texts().all(|sql| statements(sql).iter().all(counted)) {
            self.total_at_begin = None;
        }
        let alters = |s: &SqlStatement<'_>| alters_connection(s) && s.verb() != Verb::Savepoint;
        self.altered |= work.texts().any(|sql| statements(sql).iter().any(alters));
        let total = self.total_changes;
        self.mark_rowid(work)?;
        // The mark's own INSERT is not a write of the transaction.
        let marked = self.total_changes - total;
        self.total_at_begin = self.total_at_begin.map(|before| before + marked);
        Ok(())
    }

    /// Stores the outcome behind a savepoint. After an error of SQLite the transaction stays open;
    /// after any other it is rolled back.
    fn store_commit_outcome(
        &mut self,
        outcomes: &mut Outcomes,
        id: RequestId,
        done: &Done,
    ) -> Result<(), ServerError> {
        self.sqlite.batch_execute(SAVE_OUTCOME).map_err(from_diesel)?;
        self.store_outcome(outcomes, id, done).inspect_err(|refusal| {
            let undo = match refusal {
                ServerError::Database(_) => UNDO_OUTCOME,
                _ => "ROLLBACK",
            };
            // Fails only if SQLite has rolled back already.
            let _ = self.sqlite.batch_execute(undo);
        })
    }
}

/// The counters of a command after those of a record: the last rowid is the record's if the command
/// inserts nothing.
fn after_insert(done: Done, work: &Command, before: Option<SessionCounters>) -> Done {
    let mut effects = done.effects;
    if !(effects.inserted && inserts(work)) {
        effects.inserted = before.is_some();
        effects.last_insert_rowid =
            before.map_or(effects.last_insert_rowid, |before| before.last_insert_rowid);
    }
    Done { effects, ..done }
}

fn inserts(work: &Command) -> bool {
    work.texts().any(|sql| statements(sql).iter().any(SqlStatement::inserts))
}

fn no_transaction() -> ServerError {
    other("no transaction is active".into())
}
