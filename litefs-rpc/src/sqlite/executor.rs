use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;

use super::checkpoint::Checkpointer;
use super::error::{denied, other};
use super::guard::{Place, refused_from_afar};
use super::native::Opened;
use super::outcomes::{DEFAULT_RETENTION, Outcomes};
use super::readers::{OpenReader, SqliteReaders};
use super::ready::Ready;
use super::sql::{SqlStatement, Verb, statements};
use crate::executor::{CommitExpectation, Done, Executor, GroupAborted, Readers};
use crate::wire::{BeginMode, Command, Outcome, Output, Request, RequestId, ServerError, Settings};

/// Opens the connection that forwarded statements run on. Called again after a script has touched the connection's
/// own state. Blocks.
pub type Open = Box<dyn FnMut() -> diesel::ConnectionResult<Opened> + Send>;

/// Runs forwarded work on one [`SqliteConnection`].
pub struct SqliteExecutor {
    open: Open,
    pub(super) connection: Option<Ready>,
    pub(super) max_rows: usize,
    /// Statements that come again and again and were found to be harmless on their own.
    allowed: HashSet<String>,
    /// Statements that have broken a group up.
    pub(super) solitary: HashSet<String>,
    pub(super) outcomes: Outcomes,
    readers: Option<Arc<dyn Readers>>,
    checkpointer: Option<Arc<Checkpointer>>,
    /// `total_changes()` of the connection when the checkpointer was last told.
    told: i64,
    /// The pages written by connections that were closed in the middle of a request.
    pages_of_closed: i64,
}

/// How many are kept. Only an application that builds its statements at run time has more; then it starts anew.
const MAX_ALLOWED: usize = 1_024;

impl SqliteExecutor {
    /// `open` is called at the first work, not before: the database may not exist yet. `max_rows` is the limit on
    /// the size of returned rows, in bytes.
    #[must_use]
    pub fn new(open: Open, max_rows: usize) -> Self {
        let outcomes = Outcomes::new(DEFAULT_RETENTION);
        Self {
            open,
            connection: None,
            max_rows,
            allowed: HashSet::new(),
            solitary: HashSet::new(),
            outcomes,
            readers: None,
            checkpointer: None,
            told: 0,
            pages_of_closed: 0,
        }
    }

    /// How long outcomes are kept, instead of [`DEFAULT_RETENTION`]. It must be longer than anybody tries to send a write
    /// or asks for its outcome.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { outcomes: Outcomes::new(retention), ..self }
    }

    /// Tells a checkpointer of every commit. The connection is not [taken over](Checkpointer::promote_here): that is for
    /// `open` to do.
    #[must_use]
    pub fn checkpointer(self, checkpointer: Arc<Checkpointer>) -> Self {
        Self { checkpointer: Some(checkpointer), ..self }
    }

    /// Runs reads of other nodes on connections that `open` opens, so that they wait for no write and no transaction.
    #[must_use]
    pub fn reading_beside(self, open: OpenReader) -> Self {
        Self { readers: Some(Arc::new(SqliteReaders { open, max_rows: self.max_rows })), ..self }
    }

    fn tell_checkpointer(&mut self) {
        if let (Some(checkpointer), Some(ready)) = (&self.checkpointer, &self.connection) {
            let rows = ready.total_changes - std::mem::replace(&mut self.told, ready.total_changes);
            checkpointer.committed(u64::try_from(rows).unwrap_or_default());
        }
    }

    pub(super) fn ready(&mut self, settings: &Settings) -> Result<&mut Ready, ServerError> {
        let ready = match self.connection.take() {
            Some(ready) => ready,
            None => {
                let opened = (self.open)().map_err(|error| other(error.to_string()))?;
                Ready::new(opened).map_err(super::from_diesel)?
            }
        };
        let ready = self.connection.insert(ready);
        ready.apply(settings).map_err(super::from_diesel)?;
        Ok(ready)
    }

    pub(super) fn check_alone(&mut self, work: &Command) -> Result<(), ServerError> {
        let (Command::Execute(statement) | Command::Query(statement)) = work else {
            let place = if matches!(work, Command::Script(_)) { Place::Script } else { Place::Alone };
            return check(work, place);
        };
        if self.allowed.contains(&statement.sql) {
            return Ok(());
        }
        check(work, Place::Alone)?;
        if statement.cacheable {
            if self.allowed.len() >= MAX_ALLOWED {
                self.allowed.clear();
            }
            self.allowed.insert(statement.sql.clone());
        }
        Ok(())
    }

    /// To be given to [`wrote_since`](Self::wrote_since). A connection that is not open yet has written nothing.
    fn pages_written(&self) -> i64 {
        let open = self.connection.as_ref().map_or(0, |ready| ready.native.pages_written());
        self.pages_of_closed + i64::from(open)
    }

    fn wrote_since(&self, pages: i64) -> CommitExpectation {
        if self.pages_written() == pages { CommitExpectation::Unchanged } else { CommitExpectation::Advances }
    }

    fn current(&mut self) -> Result<&mut Ready, ServerError> {
        self.connection.as_mut().ok_or_else(|| other("no transaction is active".into()))
    }

    /// Runs work as it stands. Nothing is kept of it.
    pub(super) fn alone(&mut self, settings: &Settings, work: &Command) -> Result<Done, ServerError> {
        let max_rows = self.max_rows;
        let ready = self.ready(settings)?;
        ready.mark_rowid(work)?;
        match work {
            Command::Execute(statement) => {
                let before = ready.total_changes;
                let result = ready.execute(statement);
                ready.with_a_part(result, before)
            }
            Command::Query(statement) => ready.query_alone(statement, max_rows),
            Command::Insert(_) => ready.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", |ready| {
                ready.part_or_all(work, max_rows)
            }),
            Command::Script(sql) => {
                let all = statements(sql);
                let several = all.len() > 1;
                let before = ready.total_changes;
                let result = ready.script(sql, &all);
                let result = if several { ready.failed(result) } else { ready.with_a_part(result, before) };
                let failed = result.as_ref().map_or(true, Done::failed);
                if failed || all.iter().any(leaves_a_trace) {
                    self.pages_of_closed += i64::from(ready.native.pages_written());
                    self.connection = None;
                }
                result
            }
            Command::Batch { statements, rows } => {
                ready.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", |ready| {
                    ready.batch(statements, *rows, max_rows)
                })
            }
        }
    }
}

/// Why work from another node must not run, if it must not.
fn check(work: &Command, place: Place) -> Result<(), ServerError> {
    let repeated = match work {
        Command::Insert(rows) => std::slice::from_ref(&**rows),
        Command::Batch { statements, .. } => statements,
        _ => &[],
    };
    if repeated.iter().any(|repeated| repeated.width().is_none()) {
        return Err(denied("a repeated statement whose parameters do not divide by its runs".into()));
    }
    let refused = |sql| refused_from_afar(sql, place).map(denied);
    work.texts().find_map(refused).map_or(Ok(()), Err)
}

/// Statements after which the connection is no longer as the next request expects it.
fn leaves_a_trace(statement: &SqlStatement<'_>) -> bool {
    !matches!(statement.verb(), Verb::Read | Verb::Change | Verb::Schema)
}

impl Executor for SqliteExecutor {
    fn write(&mut self, request: &Request) -> Result<Done, ServerError> {
        let before = self.pages_written();
        let result = self.once(request).map(|done| Done { wrote: self.wrote_since(before), ..done });
        if let Err(refusal) = &result
            && let Some(ready) = &mut self.connection
            && (refusal.symptom().is_suspicious() || ready.forget_changes().is_err())
        {
            // Perhaps the mount that its file is on is gone, and another is there.
            self.connection = None;
        }
        if result.as_ref().is_ok_and(|done| done.wrote != CommitExpectation::Unchanged) {
            self.tell_checkpointer();
        }
        result
    }

    fn may_share(&mut self, request: &Request) -> bool {
        self.may_be_shared(request)
    }

    fn open_group(&mut self, settings: &Settings) -> Result<bool, ServerError> {
        self.begin_group(settings)
    }

    fn join(&mut self, request: &Request) -> Result<Result<Done, ServerError>, GroupAborted> {
        self.run_in_group(request)
    }

    fn close_group(&mut self) -> Result<CommitExpectation, GroupAborted> {
        let before = self.pages_written();
        self.commit_group()?;
        self.tell_checkpointer();
        Ok(self.wrote_since(before))
    }

    fn term_started(&mut self) {
        // The mount that its file is on may be another one.
        self.connection = None;
        self.outcomes.term_started();
    }

    fn settle(&mut self, id: RequestId) -> Result<(Outcome, CommitExpectation), ServerError> {
        self.ready(&Settings::default())?;
        let before = self.pages_written();
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        let outcome = outcomes.settle(&mut ready.connection, id).map_err(super::from_diesel)?;
        ready.total_changes = ready.read_total_changes()?;
        Ok((outcome, self.wrote_since(before)))
    }

    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), ServerError> {
        let begin = match mode {
            BeginMode::Immediate => "BEGIN IMMEDIATE",
            BeginMode::Exclusive => "BEGIN EXCLUSIVE",
        };
        let ready = self.ready(settings)?;
        if let Err(error) = ready.connection.batch_execute(begin) {
            let refusal = super::from_diesel(error);
            if refusal.symptom().is_suspicious() {
                self.connection = None;
            }
            return Err(refusal);
        }
        ready.at_begin = Some(ready.total_changes);
        // A transaction of its own kind: cleared by SQLite at each COMMIT, so it is set inside.
        let defer = settings.defer_foreign_keys;
        ready.pragma("defer_foreign_keys", defer).map_err(super::from_diesel)
    }

    fn step(&mut self, work: &Command) -> Result<Done, ServerError> {
        check(work, Place::Transaction)?;
        let max_rows = self.max_rows;
        let ready = self.current()?;
        let counted = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Read | Verb::Change | Verb::Savepoint);
        if !work.texts().all(|sql| statements(sql).iter().all(counted)) {
            ready.at_begin = None;
        }
        let trace = |s: &SqlStatement<'_>| leaves_a_trace(s) && s.verb() != Verb::Savepoint;
        ready.traced |= work.texts().any(|sql| statements(sql).iter().any(trace));
        let total = ready.total_changes;
        ready.mark_rowid(work)?;
        // The mark is no write of the transaction's.
        let marked = ready.total_changes - total;
        ready.at_begin = ready.at_begin.map(|before| before + marked);
        match work {
            Command::Execute(statement) => ready.execute(statement),
            Command::Query(statement) => ready.query(statement, max_rows),
            Command::Insert(rows) => {
                let mut before = ready.total_changes;
                ready.insert(rows, &mut before)
            }
            Command::Script(sql) => ready.script(sql, &statements(sql)),
            Command::Batch { statements, rows } => ready.atomically(
                "SAVEPOINT litefs_batch",
                "RELEASE litefs_batch",
                "ROLLBACK TO litefs_batch; RELEASE litefs_batch",
                |ready| ready.batch(statements, *rows, max_rows),
            ),
        }
    }

    fn in_transaction(&mut self) -> bool {
        self.connection.as_ref().is_some_and(Ready::is_in_transaction)
    }

    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError> {
        let pages = self.pages_written();
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no transaction is active".into()))?;
        let before = ready.at_begin;
        let done = ready.done(Output::Done, before)?;
        // A COMMIT that fails leaves the transaction open, and then without the record.
        let keep = keep.filter(|_| done.wrote != CommitExpectation::Unchanged);
        if let Some(id) = keep {
            ready.connection.batch_execute("SAVEPOINT litefs_outcome").map_err(super::from_diesel)?;
            if let Err(refusal) = ready.keep(outcomes, id, &done) {
                // Only an error of SQLite leaves the transaction to the caller.
                let undo = match refusal {
                    ServerError::Database(_) => "ROLLBACK TO litefs_outcome; RELEASE litefs_outcome",
                    _ => "ROLLBACK",
                };
                let _ = ready.connection.batch_execute(undo);
                return Err(refusal);
            }
        }
        let committed = ready.connection.batch_execute("COMMIT").map_err(super::from_diesel);
        if committed.is_err() && keep.is_some() {
            // Fails only where SQLite has rolled back already.
            let _ = ready.connection.batch_execute("ROLLBACK TO litefs_outcome; RELEASE litefs_outcome");
        }
        let traced = ready.traced;
        let wrote = self.wrote_since(pages);
        if committed.is_ok() && traced {
            self.connection = None;
        }
        if committed.is_ok() && wrote != CommitExpectation::Unchanged {
            self.tell_checkpointer();
        }
        committed.map(|()| Done { wrote, ..done })
    }

    fn rollback(&mut self) {
        // What cannot be rolled back is thrown away: SQLite rolls back when the connection closes.
        if let Some(mut ready) = self.connection.take()
            && !ready.traced
            && ready.connection.batch_execute("ROLLBACK").is_ok()
            && ready.forget_changes().is_ok()
        {
            self.connection = Some(ready);
        }
    }

    fn readers(&self) -> Option<Arc<dyn Readers>> {
        self.readers.clone()
    }
}

impl std::fmt::Debug for SqliteExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteExecutor").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}
