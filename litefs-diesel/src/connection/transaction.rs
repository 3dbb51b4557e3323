//! Transactions: begun lazily, read here, moved to the primary by their first write.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::wire::{BeginMode, Reply, Work};

use super::LiteFsConnection;
use super::destination::Phase;
use super::forward::{Opening, Session, Step};
use super::transaction_state::Stage;
use crate::Failure;
use crate::access::Control;
use crate::litefs::Shared;

/// What SQLite itself would have said.
pub(super) fn sqlite_error(message: impl Into<String>) -> Error {
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.into()))
}

impl LiteFsConnection {
    /// Runs a statement that steers the transaction. `sql` is its text.
    pub(super) fn control(&mut self, shared: &Arc<Shared>, control: &Control, sql: &str) -> QueryResult<()> {
        match self.transaction.phase() {
            Phase::Autocommit => self.begin(shared, control, sql),
            Phase::Pending => self.control_pending(control),
            Phase::LocalReads | Phase::LocalWrites => self.control_local(control, sql),
            Phase::Remote => self.control_remote(shared, control, sql),
            Phase::Lost => self.control_lost(control),
        }
    }

    fn begin(&mut self, shared: &Arc<Shared>, control: &Control, sql: &str) -> QueryResult<()> {
        let (mode, savepoint) = match control {
            Control::Begin(mode) => (*mode, None),
            Control::Savepoint(name) => (None, Some(name.clone())),
            // Nothing is open: SQLite says so in its own words.
            _ => return self.local.batch_execute(sql),
        };
        self.transaction.implicit = savepoint.is_some();
        self.transaction.savepoints.extend(savepoint);
        let begun = match mode {
            _ if self.is_writable(shared) => {
                self.local.batch_execute(sql).map(|()| Stage::Local { seen: None })
            }
            None => Ok(Stage::Pending),
            Some(mode) => self.begin_remote(shared, mode, sql),
        };
        match begun {
            Ok(stage) => {
                self.transaction.stage = stage;
                Ok(())
            }
            Err(error) => {
                self.transaction.end();
                Err(error)
            }
        }
    }

    /// BEGIN IMMEDIATE: the lock is the primary's, so it is taken there at once.
    fn begin_remote(&mut self, shared: &Arc<Shared>, mode: BeginMode, sql: &str) -> QueryResult<Stage> {
        let opening = Opening { mode, expected: None, savepoints: Vec::new(), first: None };
        match self.open_session(shared, opening)? {
            Some((session, _)) => Ok(Stage::Remote(session)),
            None => {
                self.follow_role(shared)?;
                self.local.batch_execute(sql).map(|()| Stage::Local { seen: None })
            }
        }
    }

    fn control_pending(&mut self, control: &Control) -> QueryResult<()> {
        let transaction = &mut self.transaction;
        match control {
            Control::Begin(_) => return Err(sqlite_error("cannot start a transaction within a transaction")),
            Control::Commit | Control::Rollback => transaction.end(),
            Control::Savepoint(name) => transaction.savepoints.push(name.clone()),
            Control::Release(name) => {
                let at = transaction.position_of(name)?;
                transaction.savepoints.truncate(at);
                if at == 0 && transaction.implicit {
                    transaction.end();
                }
            }
            Control::RollbackTo(name) => {
                let at = transaction.position_of(name)?;
                transaction.savepoints.truncate(at + 1);
            }
        }
        Ok(())
    }

    fn control_local(&mut self, control: &Control, sql: &str) -> QueryResult<()> {
        if matches!(control, Control::Begin(_)) {
            // Under `query_only` SQLite would first complain about the lock.
            return Err(sqlite_error("cannot start a transaction within a transaction"));
        }
        let ticket = if self.transaction.commits_writes(control) { self.commit_ticket() } else { None };
        let result = self.local.batch_execute(sql);
        let demoted = self.transaction.phase() == Phase::LocalWrites
            && result.as_ref().err().is_some_and(crate::demotion::is_rejection);
        if demoted {
            // LiteFS rejected the COMMIT, and SQLite has rolled back.
            self.transaction.end();
            self.manager = diesel::connection::AnsiTransactionManager::default();
            return Err(Failure::TransactionLost
                .error("LiteFS rejected the commit: this node is not the primary any more"));
        }
        result?;
        self.mirror(control);
        self.prove(ticket, true).inspect_err(|_| {
            // It is over, one way or the other.
            self.manager = diesel::connection::AnsiTransactionManager::default();
        })
    }

    fn control_remote(&mut self, shared: &Arc<Shared>, control: &Control, sql: &str) -> QueryResult<()> {
        let ends = match control {
            Control::Begin(_) => return Err(sqlite_error("cannot start a transaction within a transaction")),
            Control::Commit => Some(true),
            Control::Rollback => Some(false),
            Control::Release(name) => {
                (self.transaction.position_of(name)? == 0 && self.transaction.implicit).then_some(true)
            }
            Control::Savepoint(_) | Control::RollbackTo(_) => None,
        };
        match ends {
            Some(commit) => self.finish_remote(shared, commit),
            None => {
                self.in_session(shared, Work::Script(sql.to_owned()))?;
                self.mirror(control);
                Ok(())
            }
        }
    }

    fn finish_remote(&mut self, shared: &Arc<Shared>, commit: bool) -> QueryResult<()> {
        let Stage::Remote(session) = std::mem::take(&mut self.transaction.stage) else {
            return Err(self.transaction.lost());
        };
        match self.finish(shared, &session, commit) {
            Ok(()) => self.transaction.end(),
            // A deferred constraint, for example: as in SQLite, the caller may mend it or roll back.
            Err((error, true)) => {
                self.transaction.stage = Stage::Remote(session);
                return Err(error);
            }
            // What cannot be told to roll back rolls back by itself.
            Err(_) if !commit => self.transaction.end(),
            Err((error, false)) => {
                self.transaction.end();
                self.manager = diesel::connection::AnsiTransactionManager::default();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing can be brought back; only the way out is open.
    fn control_lost(&mut self, control: &Control) -> QueryResult<()> {
        match control {
            Control::Rollback => self.transaction.end(),
            // Diesel rolls back to a savepoint on the way to the real rollback.
            Control::RollbackTo(name) => {
                let at = self.transaction.position_of(name)?;
                self.transaction.savepoints.truncate(at + 1);
            }
            Control::Commit => {
                let error = self.transaction.lost();
                self.transaction.end();
                self.manager = diesel::connection::AnsiTransactionManager::default();
                return Err(error);
            }
            _ => return Err(self.transaction.lost()),
        }
        Ok(())
    }

    /// Keeps the list of savepoints as SQLite has it.
    fn mirror(&mut self, control: &Control) {
        let transaction = &mut self.transaction;
        let at = |name: &str| transaction.position_of(name).unwrap_or(0);
        match control {
            Control::Begin(_) => {}
            Control::Commit | Control::Rollback => transaction.end(),
            Control::Savepoint(name) => transaction.savepoints.push(name.clone()),
            Control::Release(name) => {
                let at = at(name);
                transaction.savepoints.truncate(at);
                if at == 0 && transaction.implicit {
                    transaction.end();
                }
            }
            Control::RollbackTo(name) => {
                let at = at(name);
                transaction.savepoints.truncate(at + 1);
            }
        }
    }

    /// Opens the pending transaction on the local file, for its first read. The snapshot is taken at once: its
    /// position can only be known while LiteFS cannot apply, which is as long as the snapshot is open.
    pub(super) fn begin_local(&mut self, shared: &Shared) -> QueryResult<()> {
        let _silent = self.silence.keep();
        let mut sql = String::new();
        if !self.transaction.implicit {
            sql.push_str("BEGIN;");
        }
        for name in &self.transaction.savepoints {
            sql.push_str(&format!("SAVEPOINT {name};"));
        }
        let writable = self.is_writable(shared);
        if !writable {
            sql.push_str("SELECT 1 FROM sqlite_schema;");
        }
        self.local.batch_execute(&sql)?;
        let seen = if writable { None } else { Some(self.snapshot_position(shared)?) };
        self.transaction.stage = Stage::Local { seen };
        Ok(())
    }

    fn snapshot_position(&mut self, shared: &Shared) -> QueryResult<Position> {
        shared.tracker.read_position().map_err(|error| {
            let _ = self.local.batch_execute("ROLLBACK");
            Failure::Behind
                .error(format!("the position of what this transaction reads is not known: {error}"))
        })
    }

    /// Moves the transaction to the primary, with `first` as its first statement there. `None`: this node is the
    /// primary now, and the transaction is open on its file.
    pub(super) fn move_to_primary(
        &mut self,
        shared: &Arc<Shared>,
        first: Work,
    ) -> QueryResult<Option<Reply>> {
        if self.transaction.wrote_here {
            return Err(super::run::split());
        }
        let expected = match self.transaction.stage {
            Stage::Local { seen } => seen,
            _ => None,
        };
        let savepoints = self.transaction.savepoints.clone();
        let opening = Opening { mode: BeginMode::Immediate, expected, savepoints, first: Some(first) };
        // Before anything else: an open local read transaction holds up replication on the whole node. Settings are
        // read while `defer_foreign_keys` still stands.
        self.settings()?;
        self.end_local()?;
        match self.open_session(shared, opening) {
            Ok(Some((session, first))) => {
                self.transaction.stage = Stage::Remote(session);
                first.transpose().map_err(|error| crate::error::called(error, None))
            }
            Ok(None) => self.open_here(shared, expected).map(|()| None),
            Err(error) => Err(self.not_moved(error)),
        }
    }

    /// The local part has only read.
    fn end_local(&mut self) -> QueryResult<()> {
        if matches!(self.transaction.stage, Stage::Local { .. }) {
            let _silent = self.silence.keep();
            self.local.batch_execute("COMMIT")?;
            self.transaction.stage = Stage::Pending;
        }
        Ok(())
    }

    /// This node was promoted in the middle: the transaction goes on here, if what it read still holds.
    fn open_here(&mut self, shared: &Arc<Shared>, expected: Option<Position>) -> QueryResult<()> {
        self.follow_role(shared)?;
        self.begin_local(shared)?;
        match (expected, shared.tracker.read_position().ok()) {
            (Some(expected), actual) if actual != Some(expected) => {
                let _silent = self.silence.keep();
                self.local.batch_execute("ROLLBACK")?;
                let error = Failure::SnapshotMoved
                    .error("this node became the primary since the transaction read it");
                Err(self.not_moved(error))
            }
            _ => Ok(()),
        }
    }

    /// The first write failed. Without earlier reads nothing is lost but the statement; with them the snapshot is
    /// gone, and so is the transaction.
    fn not_moved(&mut self, error: Error) -> Error {
        self.lost_race |= Failure::of(&error) == Some(Failure::SnapshotMoved);
        self.transaction.stage = Stage::Lost(format!("its first write failed: {error}"));
        error
    }

    /// Runs work in the transaction that is open on the primary.
    pub(super) fn in_session(&mut self, shared: &Arc<Shared>, work: Work) -> QueryResult<Reply> {
        let Stage::Remote(session) = std::mem::take(&mut self.transaction.stage) else {
            return Err(self.transaction.lost());
        };
        match self.step(shared, &session, work) {
            Ok(reply) => {
                self.transaction.stage = Stage::Remote(session);
                Ok(reply)
            }
            Err(Step::Failed(error)) => {
                self.transaction.stage = Stage::Remote(session);
                Err(error)
            }
            Err(Step::Lost(reason)) => {
                abandon(shared, session);
                self.transaction.stage = Stage::Lost(reason);
                Err(self.transaction.lost())
            }
        }
    }

    /// The transaction was open on the file of a node that is not the primary any more.
    pub(super) fn demoted(&mut self) -> Error {
        let _silent = self.silence.keep();
        let _ = self.local.batch_execute("ROLLBACK");
        self.transaction.stage = Stage::Lost("this node is not the primary any more".into());
        self.transaction.lost()
    }

    /// For a connection that goes away: what is open on the primary ends there at once.
    pub(super) fn abandon_session(&mut self) {
        if let (Some(shared), Stage::Remote(session)) =
            (&self.home, std::mem::take(&mut self.transaction.stage))
        {
            abandon(shared, session);
        }
    }
}

/// Tells the primary, without waiting, that a transaction is over. If the message does not arrive, the session's
/// limits end it.
fn abandon(shared: &Shared, session: Session) {
    let deadline = std::time::Instant::now() + shared.options.forward_timeout;
    shared.io.spawn(async move {
        let _ = session.link.finish(session.id, false, deadline).await;
    });
}
