//! The executor for SQLite: runs forwarded commands on one Diesel connection.

mod call;
mod commands;
mod connection;
mod group;
mod idempotency;
mod merge;
mod once;
mod replay;
mod transaction;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use litefs_core::Position;

use self::connection::ExecutorConnection;
use self::replay::check_record;
use super::checkpoint::Checkpointer;
use super::error::{denied, from_diesel, other};
use super::guard::{Scope, refused_from_remote};
use super::native::Open;
use super::outcomes::{DEFAULT_RETENTION, Outcomes};
use super::procedure::Procedures;
use super::readers::{OpenReader, SqliteReaders};
use crate::executor::{CommitExpectation, Done, Executor, GroupAborted, Readers};
use crate::wire::{BeginMode, Command, Outcome, Request, RequestId, ServerError, Settings};

/// Reads LiteFS's position of the database; `None` if it cannot be read.
pub type Positions = Arc<dyn Fn() -> Option<Position> + Send + Sync>;

/// Runs forwarded commands on one [`SqliteConnection`](diesel::sqlite::SqliteConnection).
pub struct SqliteExecutor {
    open: Open,
    connection: Option<ExecutorConnection>,
    max_rows: usize,
    /// Texts of statements that were checked and may run outside a transaction.
    allowed: HashSet<String>,
    /// Texts of statements that have aborted a group.
    solitary: HashSet<String>,
    outcomes: Outcomes,
    readers: Option<Arc<dyn Readers>>,
    checkpointer: Option<Arc<Checkpointer>>,
    /// `total_changes()` of the connection at the last call of the checkpointer.
    checkpointed_changes: i64,
    /// What connections that were closed in the middle of a request have committed for it.
    closed: CommitExpectation,
    positions: Option<Positions>,
    procedures: Arc<Procedures>,
}

/// The most texts in [`SqliteExecutor::allowed`]; at the limit all are forgotten.
const MAX_ALLOWED: usize = 1_024;

impl SqliteExecutor {
    /// Creates an executor that opens its connection at the first command: the database may not
    /// exist before. `max_rows` limits the size of returned rows, in bytes.
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
            checkpointed_changes: 0,
            closed: CommitExpectation::Unchanged,
            positions: None,
            procedures: Arc::default(),
        }
    }

    /// Sets how long outcomes are kept. Default [`DEFAULT_RETENTION`]. It must be longer than any
    /// client retries a write or asks for its outcome.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { outcomes: Outcomes::new(retention), ..self }
    }

    /// Reports each commit to a checkpointer. `open` must prepare the connection for it
    /// ([`Checkpointer::take_over`]).
    #[must_use]
    pub fn checkpointer(self, checkpointer: Arc<Checkpointer>) -> Self {
        Self { checkpointer: Some(checkpointer), ..self }
    }

    /// How LiteFS's position of the database is read when a commit begins. Without it a commit is
    /// confirmed by the position before the work, which another connection may have moved.
    #[must_use]
    pub fn positions(self, positions: Positions) -> Self {
        Self { positions: Some(positions), ..self }
    }

    /// Runs reads of other nodes on connections that `open` opens, so that they do not wait for
    /// writes and transactions.
    #[must_use]
    pub fn reading_beside(self, open: OpenReader) -> Self {
        Self { readers: Some(Arc::new(SqliteReaders { open, max_rows: self.max_rows })), ..self }
    }

    /// Sets the procedures that other nodes may call.
    #[must_use]
    pub fn procedures(self, procedures: Arc<Procedures>) -> Self {
        Self { procedures, ..self }
    }

    fn report_commit(&mut self) {
        if let (Some(checkpointer), Some(connection)) = (&self.checkpointer, &self.connection) {
            let total = connection.total_changes;
            let rows = total - std::mem::replace(&mut self.checkpointed_changes, total);
            checkpointer.committed(u64::try_from(rows).unwrap_or_default());
        }
    }

    /// The connection with these settings, opened if necessary.
    fn connect(&mut self, settings: &Settings) -> Result<&mut ExecutorConnection, ServerError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let opened = (self.open)().map_err(|error| other(error.to_string()))?;
                if let Some(positions) = self.positions.clone() {
                    opened.native.read_positions_by(Box::new(move || positions()));
                }
                opened.native.watch_commits();
                ExecutorConnection::new(opened, Arc::clone(&self.procedures))
                    .map_err(from_diesel)?
            }
        };
        let connection = self.connection.insert(connection);
        connection.apply(settings).map_err(from_diesel)?;
        Ok(connection)
    }

    /// Checks a command that is to run outside a transaction. Texts that will come back are checked
    /// once.
    fn check_autocommit(&mut self, work: &Command) -> Result<(), ServerError> {
        let (Command::Execute(statement) | Command::Query(statement)) = work else {
            let scope =
                if matches!(work, Command::Script(_)) { Scope::Script } else { Scope::Autocommit };
            return check(work, scope);
        };
        if self.allowed.contains(&statement.sql) {
            return Ok(());
        }
        check(work, Scope::Autocommit)?;
        if statement.cacheable {
            if self.allowed.len() >= MAX_ALLOWED {
                self.allowed.clear();
            }
            self.allowed.insert(statement.sql.clone());
        }
        Ok(())
    }

    /// Forgets what was committed before.
    fn watch_commits(&mut self) {
        self.closed = CommitExpectation::Unchanged;
        if let Some(connection) = &self.connection {
            connection.native.watch_commits();
        }
    }

    /// What the commits since [`watch_commits`](Self::watch_commits) must have done to the
    /// position.
    fn expectation(&self) -> CommitExpectation {
        let open = self.connection.as_ref();
        let open = open.map_or(CommitExpectation::Unchanged, |open| open.native.committed());
        self.closed.and_then(open)
    }
}

/// Refuses a command of another node that must not run in this scope.
fn check(work: &Command, scope: Scope) -> Result<(), ServerError> {
    let repeated = match work {
        Command::Insert(rows) => std::slice::from_ref(&**rows),
        Command::Batch { statements, .. } => statements,
        _ => &[],
    };
    if repeated.iter().any(|repeated| repeated.width().is_none()) {
        return Err(denied(
            "a repeated statement whose parameters do not divide by its runs".into(),
        ));
    }
    if let Command::Transaction(record) = work {
        check_record(record)?;
        return record.commands().try_for_each(|work| check(work, Scope::Transaction));
    }
    let refused = |sql| refused_from_remote(sql, scope).map(denied);
    work.texts().find_map(refused).map_or(Ok(()), Err)
}

fn no_connection() -> ServerError {
    other("no connection".into())
}

impl Executor for SqliteExecutor {
    fn write(&mut self, request: &Request) -> Result<Done, ServerError> {
        self.watch_commits();
        let result =
            self.run_request(request).map(|done| Done { wrote: self.expectation(), ..done });
        if let Err(refusal) = &result
            && let Some(connection) = &mut self.connection
            && (refusal.symptom().is_suspicious() || connection.resync_counters().is_err())
        {
            // The mount that its file is on may have been replaced.
            self.connection = None;
        }
        if result.as_ref().is_ok_and(|done| done.wrote != CommitExpectation::Unchanged) {
            self.report_commit();
        }
        if self.connection.as_ref().is_some_and(|connection| connection.altered) {
            self.connection = None;
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
        self.watch_commits();
        self.commit_group()?;
        self.report_commit();
        Ok(self.expectation())
    }

    fn term_started(&mut self) {
        // The mount that its file is on may have been replaced.
        self.connection = None;
        self.outcomes.term_started();
    }

    fn resolve_outcome(
        &mut self,
        id: RequestId,
    ) -> Result<(Outcome, CommitExpectation), ServerError> {
        self.connect(&Settings::default())?;
        self.watch_commits();
        let Self { connection, outcomes, .. } = self;
        let connection = connection.as_mut().ok_or_else(no_connection)?;
        let outcome = outcomes.resolve(&mut connection.sqlite, id).map_err(from_diesel)?;
        connection.total_changes = connection.read_total_changes()?;
        Ok((outcome, self.expectation()))
    }

    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), ServerError> {
        self.begin_transaction(settings, mode)
    }

    fn step(&mut self, work: &Command) -> Result<Done, ServerError> {
        self.run_step(work)
    }

    fn in_transaction(&mut self) -> bool {
        self.connection.as_ref().is_some_and(ExecutorConnection::is_in_transaction)
    }

    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError> {
        self.commit_transaction(keep)
    }

    fn rollback(&mut self) {
        self.rollback_transaction();
    }

    fn readers(&self) -> Option<Arc<dyn Readers>> {
        self.readers.clone()
    }
}

impl std::fmt::Debug for SqliteExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteExecutor")
            .field("open", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}
