//! What is known of the connection's transaction: its stage, its savepoints, Diesel's view of it.

use diesel::connection::AnsiTransactionManager;
use diesel::result::{Error, QueryResult};
use litefs_core::{Position, RoleStamp};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::wire::BeginMode;

use super::super::decide::phase::Phase;
use super::super::errors::sqlite_error;
use super::super::local::Speculation;
use super::super::remote::session::Session;
use super::record::Record;
use crate::access::Control;
use crate::failure::Failure;
use crate::node::speculation::Turn;

/// The connection's transaction.
#[derive(Debug, Default)]
pub(in crate::connection) struct Transaction {
    current: Current,
    /// Diesel's view: its depth, and whether Diesel considers it broken.
    manager: AnsiTransactionManager,
    /// The last failure was a conflict with another writer or with a change of the primary: the
    /// same transaction may succeed when it runs again.
    retryable_conflict: bool,
}

/// The transaction as SQL sees it.
#[derive(Debug, Default)]
struct Current {
    stage: Stage,
    /// The role under which it was opened on this node's own file.
    role: Option<RoleStamp>,
    /// Open savepoints, outermost first.
    savepoints: Vec<String>,
    /// Begun by a SAVEPOINT instead of BEGIN: its RELEASE ends it.
    implicit: bool,
    /// It has changed temporary or attached tables, so it cannot move to the primary.
    wrote_locally: bool,
    /// It has changed the database, on the primary.
    wrote_remotely: bool,
    /// The same, or something that `total_changes()` does not count.
    may_have_written: bool,
    /// What it has done on a replica.
    record: Record,
}

/// Where the transaction is open.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    None,
    Pending,
    /// The same for a BEGIN that takes the lock.
    PendingRemote(BeginMode),
    /// `snapshot`: the position of the replica's snapshot; `None` on a node that could write when
    /// the transaction began.
    Local {
        snapshot: Option<Position>,
    },
    /// `None`: the local part is taken back, and only the record is left.
    Speculating(Option<LocalPart>),
    Remote(Session),
    Lost(String),
}

/// The part of a transaction that is open on a replica's snapshot, with writes.
#[derive(Debug)]
pub(super) struct LocalPart {
    pub(super) turn: Turn,
    pub(super) settings: Speculation,
}

impl Transaction {
    #[inline]
    pub(in crate::connection) fn phase(&self) -> Phase {
        match &self.current.stage {
            Stage::None => Phase::Autocommit,
            Stage::Pending => Phase::Pending,
            Stage::PendingRemote(_) => Phase::PendingRemote,
            Stage::Speculating(_) => Phase::Speculating,
            Stage::Local { snapshot: Some(_) } => Phase::LocalReads,
            Stage::Local { snapshot: None } => Phase::LocalWrites,
            Stage::Remote(_) => Phase::Remote,
            Stage::Lost(_) => Phase::Lost,
        }
    }

    /// The role under which the transaction was opened on this node's own file.
    pub(in crate::connection) fn role(&self) -> Option<RoleStamp> {
        self.current.role
    }

    /// The position of the open snapshot of a replica.
    pub(super) fn snapshot(&self) -> Option<Position> {
        match self.current.stage {
            Stage::Local { snapshot } => snapshot,
            _ => None,
        }
    }

    /// Open savepoints, outermost first.
    pub(super) fn savepoints(&self) -> &[String] {
        &self.current.savepoints
    }

    /// The statements that open a pending transaction: BEGIN, unless a savepoint began it, and its
    /// savepoints.
    pub(super) fn opening_sql(&self) -> String {
        let begin = if self.current.implicit { "" } else { "BEGIN;" };
        let savepoints = self.current.savepoints.iter();
        savepoints
            .map(|name| format!("SAVEPOINT \"{name}\";"))
            .fold(begin.to_owned(), |sql, savepoint| sql + &savepoint)
    }

    /// What it has done on a replica.
    pub(super) fn record(&mut self) -> &mut Record {
        &mut self.current.record
    }

    /// The part that is open on a replica's snapshot, with writes.
    pub(super) fn local_part(&self) -> Option<&LocalPart> {
        match &self.current.stage {
            Stage::Speculating(part) => part.as_ref(),
            _ => None,
        }
    }

    /// The same, which the caller ends.
    pub(super) fn take_local_part(&mut self) -> Option<LocalPart> {
        match &mut self.current.stage {
            Stage::Speculating(part) => part.take(),
            _ => None,
        }
    }

    /// The transaction writes to a replica's snapshot from now on.
    pub(super) fn set_speculating(&mut self, part: LocalPart) {
        self.current.stage = Stage::Speculating(Some(part));
    }

    /// How the first statement has to open the transaction on the primary.
    pub(super) fn begin_mode(&self) -> BeginMode {
        match self.current.stage {
            Stage::PendingRemote(mode) => mode,
            _ => BeginMode::Immediate,
        }
    }

    /// BEGIN IMMEDIATE or EXCLUSIVE has been accepted; the first statement takes it along.
    pub(super) fn set_pending_remote(&mut self, mode: BeginMode) {
        self.current.stage = Stage::PendingRemote(mode);
    }

    /// BEGIN has been accepted; the transaction is to be opened by its first statement.
    pub(super) fn set_pending(&mut self) {
        self.current.stage = Stage::Pending;
    }

    /// The local part is over; what it was is kept.
    pub(super) fn keep_record_pending(&mut self) {
        self.current.stage = Stage::Pending;
    }

    /// The transaction is open on this node's own file.
    pub(super) fn set_local(&mut self, snapshot: Option<Position>, role: Option<RoleStamp>) {
        self.current.stage = Stage::Local { snapshot };
        self.current.role = role;
        self.current.record = Record::of_snapshot(snapshot);
    }

    /// The transaction is open on the primary.
    pub(super) fn set_session(&mut self, session: Session) {
        self.current.stage = Stage::Remote(session);
    }

    /// The session, for a call in it. Without [`set_session`](Self::set_session) afterwards the
    /// transaction is over.
    pub(super) fn take_session(&mut self) -> Option<Session> {
        match std::mem::take(&mut self.current.stage) {
            Stage::Remote(session) => Some(session),
            _ => None,
        }
    }

    /// `control` has begun the transaction. A savepoint that did so ends it as well.
    pub(super) fn begun_by(&mut self, control: &Control) {
        if let Control::Savepoint(name) = control {
            self.current.implicit = true;
            self.current.savepoints.push(name.clone());
        }
    }

    /// A statement has changed temporary or attached tables.
    pub(in crate::connection) fn note_local_write(&mut self) {
        self.current.wrote_locally = self.phase() != Phase::Autocommit;
    }

    /// Whether temporary or attached tables were changed.
    pub(super) fn wrote_locally(&self) -> bool {
        self.current.wrote_locally
    }

    /// The primary has answered. `counted`: `total_changes()` has grown. `may_have_written`: it
    /// has, or the statement changes what `total_changes()` does not count.
    pub(in crate::connection) fn note_reply(&mut self, counted: bool, may_have_written: bool) {
        if self.phase() == Phase::Remote {
            self.current.wrote_remotely |= counted;
            self.current.may_have_written |= may_have_written;
        }
    }

    /// Whether it has changed rows, on the primary.
    pub(in crate::connection) fn wrote_remotely(&self) -> bool {
        self.current.wrote_remotely
    }

    /// Whether it may have changed the database, on the primary.
    pub(in crate::connection) fn may_have_written(&self) -> bool {
        self.current.may_have_written
    }

    /// Whether `control` releases the savepoint that began the transaction.
    pub(super) fn ends_by(&self, control: &Control) -> bool {
        match control {
            Control::Release(name) => {
                self.current.implicit && self.position_of(name).is_ok_and(|at| at == 0)
            }
            _ => false,
        }
    }

    /// Updates the list of savepoints as SQLite does.
    pub(super) fn note_control(&mut self, control: &Control) -> QueryResult<()> {
        match control {
            Control::Begin(_) => {}
            Control::Commit | Control::Rollback => self.end(),
            Control::Savepoint(name) => self.current.savepoints.push(name.clone()),
            Control::Release(_) if self.ends_by(control) => self.end(),
            Control::Release(name) => {
                let at = self.position_of(name)?;
                self.current.savepoints.truncate(at);
            }
            Control::RollbackTo(name) => {
                let at = self.position_of(name)?;
                self.current.savepoints.truncate(at + 1);
            }
        }
        Ok(())
    }

    fn position_of(&self, name: &str) -> QueryResult<usize> {
        self.current
            .savepoints
            .iter()
            .rposition(|savepoint| savepoint.eq_ignore_ascii_case(name))
            .ok_or_else(|| sqlite_error(format!("no such savepoint: {name}")))
    }

    /// The transaction is rolled back, and its application does not know it yet.
    pub(in crate::connection) fn lose(&mut self, reason: impl Into<String>) {
        self.current.stage = Stage::Lost(reason.into());
    }

    /// The error of a statement in a lost transaction.
    pub(in crate::connection) fn lost_error(&self) -> Error {
        match &self.current.stage {
            Stage::Lost(reason) => Failure::TransactionLost.error(reason),
            _ => Failure::TransactionLost.error("the transaction is gone"),
        }
    }

    /// The transaction is over.
    pub(super) fn end(&mut self) {
        self.current = Current::default();
    }

    /// The transaction is over, and its COMMIT has failed: Diesel must not roll it back.
    pub(in crate::connection) fn end_failed_commit(&mut self) {
        self.end();
        self.reset_manager();
    }

    /// What Diesel knows of the transaction.
    pub(in crate::connection) fn manager_mut(&mut self) -> &mut AnsiTransactionManager {
        &mut self.manager
    }

    /// COMMIT has failed although the transaction is over: Diesel must not roll it back.
    pub(in crate::connection) fn reset_manager(&mut self) {
        self.manager = AnsiTransactionManager::default();
    }

    /// Whether the transaction failed because of a conflict, and may succeed when it runs again.
    pub(super) fn has_retryable_conflict(&self) -> bool {
        self.retryable_conflict
    }

    pub(in crate::connection) fn set_retryable_conflict(&mut self, retryable: bool) {
        self.retryable_conflict = retryable;
    }

    /// Notes the result of a statement on plain SQLite.
    pub(in crate::connection) fn note_conflict<T>(&mut self, result: &QueryResult<T>) {
        self.retryable_conflict |= result.as_ref().is_err_and(is_locked);
    }

    /// A transaction on this node's own file has read, and SQLite refuses its write because another
    /// connection has written or is writing. SQLite reports a lock, but waiting does not help: the
    /// transaction has to run again.
    pub(in crate::connection) fn map_conflict<T>(
        &mut self,
        result: QueryResult<T>,
    ) -> QueryResult<T> {
        // A conflict of an earlier statement does not count: the transaction has gone on since.
        self.retryable_conflict = result.as_ref().is_err_and(is_locked);
        match result {
            Err(error) if self.retryable_conflict && self.phase().is_local() => {
                let message = format!(
                    "another connection is writing, or has written since this transaction read: \
                     {error}"
                );
                Err(Failure::SnapshotMoved.error(message))
            }
            result => result,
        }
    }
}

/// SQLITE_BUSY and SQLITE_BUSY_SNAPSHOT, <https://www.sqlite.org/rescode.html#busy_snapshot>;
/// Diesel keeps the message only.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if Symptom::of(information.message()) == Symptom::Locked)
}
