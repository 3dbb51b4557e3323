//! Transactions: begun lazily, read here, moved to the primary by their first write.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::wire::{BeginMode, Command, Reply};

use super::LiteFsConnection;
use super::destination::Phase;
use super::remote::channel::Path;
use super::remote::session::{Opening, Session, Step};
use super::steering::{Steering, steering};
use super::transaction_calls::is_locked;
use super::transaction_state::Stage;
use crate::Failure;
use crate::access::Control;
use crate::node::Node;
use crate::node::diagnosis::explained;

/// What SQLite itself would have said.
pub(super) fn sqlite_error(message: impl Into<String>) -> Error {
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.into()))
}

impl LiteFsConnection {
    /// Runs a statement that steers the transaction. `sql` is its text.
    pub(super) fn control(
        &mut self,
        node: &Arc<Node>,
        control: &Control,
        sql: &str,
    ) -> QueryResult<()> {
        let result = self.steered(node, control, sql);
        if self.settings.is_some_and(|settings| settings.defer_foreign_keys) {
            // SQLite clears it at the end of each transaction.
            self.settings = None;
        }
        result
    }

    fn steered(&mut self, node: &Arc<Node>, control: &Control, sql: &str) -> QueryResult<()> {
        let (control, sql) = match control {
            // SQLite takes no write lock either where it only reads.
            Control::Begin(Some(_)) if self.read_only => (&Control::Begin(None), "BEGIN"),
            control => (control, sql),
        };
        let ends = self.transaction.ends_by(control);
        if ends || *control == Control::Commit {
            // From here on a failure is of the commit.
            self.lost_race = false;
        }
        match steering(self.transaction.phase(), control, self.is_writable(node), ends) {
            Steering::Pass => self.local.batch_execute(sql),
            Steering::BeginLazily => self.begun(control, Ok(Stage::Pending)),
            Steering::BeginHere => {
                let begun = self.begin_here(node, sql);
                self.begun(control, begun)
            }
            Steering::BeginThere(mode) => {
                let begun = self.begin_there(node, mode, sql);
                self.begun(control, begun)
            }
            Steering::Nested => {
                Err(sqlite_error("cannot start a transaction within a transaction"))
            }
            Steering::Note => self.transaction.note(control),
            Steering::Here => self.control_here(node, control, sql),
            Steering::There => {
                self.in_session(node, Command::Script(sql.to_owned()))?;
                self.transaction.note(control)
            }
            Steering::Finish { commit } => self.finish_there(node, commit),
            Steering::CommitLost => {
                let error = self.transaction.lost();
                self.transaction.end();
                self.manager = diesel::connection::AnsiTransactionManager::default();
                Err(error)
            }
            Steering::Lost => Err(self.transaction.lost()),
        }
    }

    fn begun(&mut self, control: &Control, stage: QueryResult<Stage>) -> QueryResult<()> {
        self.transaction.stage = stage?;
        if let Control::Savepoint(name) = control {
            self.transaction.implicit = true;
            self.transaction.savepoints.push(name.clone());
        }
        Ok(())
    }

    fn begin_here(&mut self, node: &Node, sql: &str) -> QueryResult<Stage> {
        let begun = self.local.batch_execute(sql).map_err(|error| explained(node, error));
        self.transaction.role = self.seen;
        begun.map(|()| Stage::Local { seen: None })
    }

    /// BEGIN IMMEDIATE: the lock is the primary's, so it is taken there at once.
    fn begin_there(&mut self, node: &Arc<Node>, mode: BeginMode, sql: &str) -> QueryResult<Stage> {
        let opening = Opening { mode, expected: None, savepoints: Vec::new(), first: None };
        match self.open_session(node, opening)? {
            Some((session, _)) => Ok(Stage::Remote(session)),
            None => {
                self.follow_role(node)?;
                self.begin_here(node, sql)
            }
        }
    }

    /// A script that begins a transaction and fails leaves it open. On a node that can write it is
    /// the connection's from here on, as in SQLite; on a replica it would hold replication up.
    pub(super) fn adopt_open_transaction(&mut self, node: &Node) {
        if self.phase() != Phase::Autocommit || self.native.is_autocommit() {
            return;
        }
        if self.is_writable(node) {
            self.transaction.stage = Stage::Local { seen: None };
            self.transaction.role = self.seen;
            return;
        }
        let _silent = self.silence.keep();
        let _ = self.local.batch_execute("ROLLBACK");
        self.transaction.lose("the script that opened it failed");
    }

    fn control_here(&mut self, node: &Node, control: &Control, sql: &str) -> QueryResult<()> {
        let commits = *control == Control::Commit || self.transaction.ends_by(control);
        self.committing_from = None;
        let ticket = if commits && self.native.is_writing() {
            let mixed = self.transaction.wrote_here && self.has_attached();
            self.commit_ticket(mixed)
        } else {
            None
        };
        let result = self.local.batch_execute(sql);
        result.map_err(|error| self.control_failed(node, error))?;
        self.transaction.note(control)?;
        self.prove(ticket).inspect_err(|_| {
            // It is over, one way or the other.
            self.manager = diesel::connection::AnsiTransactionManager::default();
        })
    }

    fn finish_there(&mut self, node: &Arc<Node>, commit: bool) -> QueryResult<()> {
        let Stage::Remote(session) = std::mem::take(&mut self.transaction.stage) else {
            return Err(self.transaction.lost());
        };
        match self.finish(node, session, commit) {
            Ok(()) => self.transaction.end(),
            // A deferred constraint, for example: as in SQLite, the caller may mend it or roll
            // back.
            Err((error, Some(session))) => {
                self.transaction.stage = Stage::Remote(session);
                return Err(error);
            }
            // What cannot be told to roll back rolls back by itself.
            Err(_) if !commit => self.transaction.end(),
            Err((error, None)) => {
                self.lost_race = Failure::of(&error) == Some(Failure::TransactionLost);
                self.transaction.end();
                self.manager = diesel::connection::AnsiTransactionManager::default();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Opens the pending transaction on the local file, for its first read. The snapshot is taken
    /// at once: its position can only be known while LiteFS cannot apply, which is as long as the
    /// snapshot is open.
    pub(super) fn begin_local(&mut self, node: &Node) -> QueryResult<()> {
        let _silent = self.silence.keep();
        let mut sql = String::new();
        if !self.transaction.implicit {
            sql.push_str("BEGIN;");
        }
        for name in &self.transaction.savepoints {
            sql.push_str(&format!("SAVEPOINT \"{name}\";"));
        }
        let writable = self.is_writable(node);
        if !writable {
            sql.push_str("SELECT 1 FROM sqlite_schema;");
        }
        if let Err(error) = self.local.batch_execute(&sql) {
            // BEGIN has succeeded if the snapshot has not.
            if !self.native.is_autocommit() {
                let _ = self.local.batch_execute("ROLLBACK");
            }
            return Err(error);
        }
        let seen = if writable { None } else { Some(self.snapshot_position(node)?) };
        self.transaction.role = self.seen;
        self.transaction.stage = Stage::Local { seen };
        Ok(())
    }

    fn snapshot_position(&mut self, node: &Node) -> QueryResult<Position> {
        node.tracker.read_position().map_err(|error| {
            let _ = self.local.batch_execute("ROLLBACK");
            Failure::Behind
                .error(format!("the position of what this transaction reads is not known: {error}"))
        })
    }

    /// Moves the transaction to the primary, with `first` as its first statement there. `None`:
    /// this node is the primary now, and the transaction is open on its file.
    pub(super) fn move_to_primary(
        &mut self,
        node: &Arc<Node>,
        first: Command,
    ) -> QueryResult<Option<Reply>> {
        if self.transaction.wrote_here {
            return Err(super::run::split());
        }
        let expected = match self.transaction.stage {
            Stage::Local { seen } => seen,
            _ => None,
        };
        let savepoints = self.transaction.savepoints.clone();
        let opening =
            Opening { mode: BeginMode::Immediate, expected, savepoints, first: Some(first) };
        // Before anything else: an open local read transaction holds up replication on the whole
        // node. Settings are read while `defer_foreign_keys` still stands.
        self.settings()?;
        self.end_local()?;
        match self.open_session(node, opening) {
            Ok(Some((session, first))) => {
                self.transaction.stage = Stage::Remote(session);
                first.transpose().map_err(|error| crate::error::called(error, None))
            }
            Ok(None) => self.open_here(node, expected).map(|()| None),
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

    /// This node was promoted in the middle: the transaction goes on here, if what it read still
    /// holds.
    fn open_here(&mut self, node: &Arc<Node>, expected: Option<Position>) -> QueryResult<()> {
        self.follow_role(node)?;
        self.begin_local(node)?;
        if expected.is_some() {
            // The snapshot is taken before its position is read: who writes after it is seen by
            // SQLite itself.
            let _silent = self.silence.keep();
            self.local.batch_execute("SELECT 1 FROM sqlite_schema")?;
        }
        match (expected, node.tracker.read_position().ok()) {
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

    /// The first write failed. Without earlier reads nothing is lost but the statement; with them
    /// the snapshot is gone, and so is the transaction.
    fn not_moved(&mut self, error: Error) -> Error {
        self.lost_race = Failure::of(&error) == Some(Failure::SnapshotMoved) || is_locked(&error);
        self.transaction.stage = Stage::Lost(format!("its first write failed: {error}"));
        error
    }

    /// Runs work in the transaction that is open on the primary.
    pub(super) fn in_session(&mut self, node: &Arc<Node>, work: Command) -> QueryResult<Reply> {
        let Stage::Remote(mut session) = std::mem::take(&mut self.transaction.stage) else {
            return Err(self.transaction.lost());
        };
        match self.step(node, &mut session, work) {
            Ok(reply) => {
                self.transaction.stage = Stage::Remote(session);
                Ok(reply)
            }
            Err(Step::Failed(error)) => {
                self.transaction.stage = Stage::Remote(session);
                Err(error)
            }
            Err(Step::Lost(reason)) => {
                // Lost with the primary, that is; not to a time limit, which it would meet again.
                self.lost_race =
                    self.link.as_ref().is_some_and(|(used, _)| *used != node.tracker.stamp());
                abandon(node, session);
                self.transaction.stage = Stage::Lost(reason);
                Err(self.transaction.lost())
            }
        }
    }

    /// The transaction was open on the file of a node that is not the primary any more.
    pub(super) fn demoted(&mut self) -> Error {
        self.lose_local("this node is not the primary any more")
    }

    /// The transaction was open on this node's own file, and cannot go on.
    pub(super) fn lose_local(&mut self, reason: &str) -> Error {
        let _silent = self.silence.keep();
        let _ = self.local.batch_execute("ROLLBACK");
        self.lost_race = true;
        self.transaction.lose(reason);
        self.transaction.lost()
    }

    /// For a connection that goes away: what is open on the primary ends there at once.
    pub(super) fn abandon_session(&mut self) {
        if let (Some(node), Stage::Remote(session)) =
            (&self.home, std::mem::take(&mut self.transaction.stage))
        {
            abandon(node, session);
        }
    }
}

/// Tells the primary, without waiting, that a transaction is over. If the message does not arrive,
/// the session's limits end it.
fn abandon(node: &Node, session: Session) {
    // A lane is closed when it is dropped, which tells the primary.
    if let Path::Shared(link) = session.path {
        let deadline = std::time::Instant::now() + node.options.forward_timeout;
        node.io.spawn(async move {
            let _ = link.finish(session.id, false, deadline).await;
        });
    }
}
