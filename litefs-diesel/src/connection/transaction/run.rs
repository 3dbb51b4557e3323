//! Carries out what the transaction control statements do, here and on the primary.

use std::sync::Arc;

use diesel::result::{Error, QueryResult};
use litefs_core::Position;
use litefs_rpc::client::CallError;
use litefs_rpc::wire::{BeginMode, Command, Reply, ServerError};

use super::super::LiteFsConnection;
use super::super::decide::control::{ControlAction, control_action};
use super::super::decide::phase::Phase;
use super::super::errors::{split, sqlite_error};
use super::super::local::is_writable;
use super::super::remote::commit::EndError;
use super::super::remote::session::{First, Opening, Step};
use super::state::is_locked;
use crate::access::Control;
use crate::error::{called, conflict_of_call};
use crate::failure::Failure;
use crate::node::Node;
use crate::node::diagnosis::explained;

impl LiteFsConnection {
    /// Runs a transaction control statement. `sql` is its text.
    pub(in crate::connection) fn control(
        &mut self,
        node: &Arc<Node>,
        control: &Control,
        sql: &str,
    ) -> QueryResult<()> {
        let result = self.run_control(node, control, sql);
        self.session.transaction_changed();
        result
    }

    fn run_control(&mut self, node: &Arc<Node>, control: &Control, sql: &str) -> QueryResult<()> {
        let (control, sql) = match control {
            // SQLite takes no write lock either on a connection that only reads.
            Control::Begin(Some(_)) if self.local.is_read_only() => {
                (&Control::Begin(None), "BEGIN")
            }
            Control::Begin(None)
                if !node.options.transactions.is_optimistic() && !self.local.is_read_only() =>
            {
                (&Control::Begin(Some(BeginMode::Immediate)), "BEGIN IMMEDIATE")
            }
            control => (control, sql),
        };
        let ends = self.transaction.ends_by(control);
        if ends || *control == Control::Commit {
            // From here on a failure is one of the commit.
            self.transaction.set_retryable_conflict(false);
        }
        match control_action(self.transaction.phase(), control, is_writable(node), ends) {
            ControlAction::Pass => self.local.batch_execute(sql),
            ControlAction::BeginLazily => {
                self.transaction.set_pending();
                self.transaction.begun_by(control);
                Ok(())
            }
            ControlAction::BeginLocal => {
                self.begin_at_once(node, sql)?;
                self.transaction.begun_by(control);
                Ok(())
            }
            ControlAction::BeginRemote(mode) => {
                self.transaction.set_pending_remote(mode);
                Ok(())
            }
            ControlAction::Nested => {
                Err(sqlite_error("cannot start a transaction within a transaction"))
            }
            ControlAction::Record => self.transaction.note_control(control),
            ControlAction::RunLocal => self.control_local(node, control, sql),
            ControlAction::RunRemote => {
                match self.in_session(node, Command::Script(sql.to_owned()))? {
                    Some(_) => self.transaction.note_control(control),
                    None => self.control_local(node, control, sql),
                }
            }
            ControlAction::Finish { commit } => self.finish_remote(node, commit),
            ControlAction::Submit => self.submit(node),
            ControlAction::Discard => {
                self.take_back();
                self.transaction.end();
                Ok(())
            }
            ControlAction::RunRecorded => self.control_recorded(control, sql),
            ControlAction::CommitLost => {
                let error = self.transaction.lost_error();
                self.transaction.end_failed_commit();
                Err(error)
            }
            ControlAction::Lost => Err(self.transaction.lost_error()),
        }
    }

    /// On a node that can write, `sql` opens the transaction on its file.
    fn begin_at_once(&mut self, node: &Node, sql: &str) -> QueryResult<()> {
        self.local.batch_execute(sql).map_err(|error| explained(node, error))?;
        self.transaction.set_local(None, self.local.prepared_for());
        Ok(())
    }

    /// A script that begins a transaction and fails leaves it open. On a node that can write it
    /// becomes the connection's transaction, as in SQLite. On a replica it is rolled back, because
    /// it would block replication.
    pub(in crate::connection) fn adopt_open_transaction(&mut self, node: &Node) {
        if self.phase() != Phase::Autocommit || self.local.is_autocommit() {
            return;
        }
        if is_writable(node) {
            self.transaction.set_local(None, self.local.prepared_for());
            return;
        }
        self.local.roll_back();
        self.transaction.lose("the script that opened it failed");
    }

    pub(super) fn control_local(
        &mut self,
        node: &Node,
        control: &Control,
        sql: &str,
    ) -> QueryResult<()> {
        let commits = *control == Control::Commit || self.transaction.ends_by(control);
        self.commits.expect_none();
        let guard = if commits && self.local.is_writing() {
            let mixed = self.transaction.wrote_locally() && self.local.has_attached();
            self.commits.guard(node, &self.local, mixed)
        } else {
            None
        };
        // After a promotion BEGIN has opened what a savepoint began.
        let sql = if self.transaction.ends_by(control) { "COMMIT" } else { sql };
        let result = self.local.batch_execute(sql);
        result.map_err(|error| self.control_failed(node, error))?;
        self.transaction.note_control(control)?;
        // The transaction is over, whether its commit is confirmed or not.
        self.commits
            .confirm(guard, node, &mut self.local)
            .inspect_err(|_| self.transaction.reset_manager())
    }

    fn finish_remote(&mut self, node: &Arc<Node>, commit: bool) -> QueryResult<()> {
        let Some(session) = self.transaction.take_session() else {
            return Err(self.transaction.lost_error());
        };
        match self.finish(node, session, commit) {
            Ok(()) => {
                self.transaction.end();
                Ok(())
            }
            // A deferred constraint, for example. As in SQLite the transaction stays open: the
            // caller can correct it or roll back.
            Err(EndError { error, session: Some(session), .. }) => {
                self.transaction.set_session(session);
                Err(error)
            }
            // The primary rolls back by itself if ROLLBACK does not arrive.
            Err(_) if !commit => {
                self.transaction.end();
                Ok(())
            }
            Err(EndError { lost_with_primary: true, .. })
                if self.transaction.record().is_complete() =>
            {
                self.submit(node)
            }
            Err(EndError { error, .. }) => {
                let lost = Failure::of(&error) == Some(Failure::TransactionLost);
                self.transaction.set_retryable_conflict(lost);
                self.transaction.end_failed_commit();
                Err(error)
            }
        }
    }

    /// Opens the pending transaction on the local file, for its first read. The snapshot is taken
    /// at once: its position can only be known while LiteFS cannot apply, which is as long as the
    /// snapshot is open.
    pub(in crate::connection) fn begin_local(&mut self, node: &Node) -> QueryResult<()> {
        let _muted = self.local.mute();
        let mut sql = self.transaction.opening_sql();
        let writable = is_writable(node);
        if !writable {
            sql.push_str("SELECT 1 FROM sqlite_schema;");
        }
        if let Err(error) = self.local.batch_execute(&sql) {
            // BEGIN has succeeded if the snapshot has not.
            if !self.local.is_autocommit() {
                self.local.roll_back();
            }
            return Err(error);
        }
        let snapshot = if writable { None } else { Some(self.snapshot_position(node)?) };
        if snapshot.is_some() {
            let version = self.local.schema_version().inspect_err(|_| self.local.roll_back());
            self.classes.set_schema_version(version?);
        }
        self.transaction.set_local(snapshot, self.local.prepared_for());
        Ok(())
    }

    fn snapshot_position(&mut self, node: &Node) -> QueryResult<Position> {
        node.tracker.read_position().map_err(|error| {
            self.local.roll_back();
            Failure::Behind
                .error(format!("the position of what this transaction reads is not known: {error}"))
        })
    }

    /// Moves the transaction to the primary, with `first` as its first statement there. What it has
    /// done so far goes along and is compared. `None`: this node is the primary now, and the
    /// transaction is open on its file.
    pub(super) fn move_to_primary(
        &mut self,
        node: &Arc<Node>,
        first: Option<Command>,
    ) -> QueryResult<Option<Reply>> {
        if self.transaction.wrote_locally() {
            return Err(split());
        }
        // Before anything else: an open local transaction holds up replication on the whole node.
        // Settings are read while `defer_foreign_keys` is still set.
        let settings = self.session.settings(&mut self.local)?;
        let mode = self.transaction.begin_mode();
        let snapshot = self.transaction.snapshot();
        self.digest_reads(node)?;
        self.end_local_part()?;
        let replays = self.transaction.record().is_complete()
            && !self.transaction.record().is_empty()
            && self.speaks_of_records(node);
        let sent = first.clone();
        if !replays && !self.transaction.record().is_empty() {
            self.transaction.record().set_incomplete();
        }
        self.record_savepoints();
        let opening = if replays {
            let record = Arc::new(self.transaction.record().to_wire(first));
            let (savepoints, first) = (Vec::new(), Some(Command::Transaction(record)));
            Opening { mode, expected: None, savepoints, first }
        } else {
            let savepoints = self.transaction.savepoints().to_vec();
            Opening { mode, expected: snapshot, savepoints, first }
        };
        match self.remote.open_session(node, settings, opening) {
            Ok(Some((session, Some(Err(error))))) if conflict_of_call(&error).is_some() => {
                session.release();
                let error = self.conflict(node, called(error, None));
                Err(self.move_failed(error))
            }
            Ok(Some((session, first))) => {
                self.transaction.set_session(session);
                if let Some(Ok(reply)) = &first
                    && replays
                    && self.transaction.record().inserted()
                {
                    self.session.record_inserted(reply.effects);
                }
                if let Some(work) = sent {
                    self.note_first(&work, first.as_ref());
                }
                first.transpose().map_err(|error| called(error, None))
            }
            Ok(None) => self.reopen_local(node, mode, snapshot, replays).map(|()| None),
            Err(error) => Err(self.move_failed(error)),
        }
    }

    /// The savepoints that were set before the first write become steps of the record.
    pub(super) fn record_savepoints(&mut self) {
        if self.transaction.record().wrote() {
            return;
        }
        for name in self.transaction.savepoints().to_vec() {
            self.transaction.record().push_savepoint(format!("SAVEPOINT \"{name}\""));
        }
    }

    /// Ends what is open on this replica's file. Nothing of it stays.
    fn end_local_part(&mut self) -> QueryResult<()> {
        self.take_back();
        if self.phase().is_local() {
            self.local.batch_execute_muted("COMMIT")?;
            self.transaction.keep_record_pending();
        }
        Ok(())
    }

    /// This node was promoted during the move: the transaction continues on its file, if the
    /// database is still as the transaction has seen it.
    fn reopen_local(
        &mut self,
        node: &Arc<Node>,
        mode: BeginMode,
        expected: Option<Position>,
        replays: bool,
    ) -> QueryResult<()> {
        self.follow_role(node)?;
        if self.phase() == Phase::PendingRemote {
            let begin = match mode {
                BeginMode::Exclusive => "BEGIN EXCLUSIVE",
                _ => "BEGIN IMMEDIATE",
            };
            let _muted = self.local.mute();
            let savepoints = self.transaction.opening_sql();
            let savepoints = savepoints.strip_prefix("BEGIN;").unwrap_or_default();
            self.local.batch_execute(begin).map_err(|error| explained(node, error))?;
            self.local.batch_execute(savepoints).map_err(|error| explained(node, error))?;
            self.transaction.set_local(None, self.local.prepared_for());
            return Ok(());
        }
        if replays {
            return self.replay_here(node);
        }
        self.begin_local(node)?;
        if expected.is_some() {
            // The snapshot is taken before its position is read: SQLite detects a write that comes
            // after it.
            self.local.batch_execute_muted("SELECT 1 FROM sqlite_schema")?;
        }
        match (expected, node.tracker.read_position().ok()) {
            (Some(expected), actual) if actual != Some(expected) => {
                self.local.batch_execute_muted("ROLLBACK")?;
                let error = Failure::SnapshotMoved
                    .error("this node became the primary since the transaction read it");
                Err(self.move_failed(error))
            }
            _ => Ok(()),
        }
    }

    /// The first write failed. Without earlier reads nothing is lost but the statement; with them
    /// the snapshot is gone, and so is the transaction.
    pub(super) fn move_failed(&mut self, error: Error) -> Error {
        let moved = Failure::of(&error) == Some(Failure::SnapshotMoved);
        self.transaction.set_retryable_conflict(moved || is_locked(&error));
        self.transaction.lose(format!("its first write failed: {error}"));
        error
    }

    /// Runs work in the transaction that is open on the primary. `None`: the primary was lost, this
    /// node has taken its place, and the transaction is open on its file.
    pub(in crate::connection) fn in_session(
        &mut self,
        node: &Arc<Node>,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        let Some(mut session) = self.transaction.take_session() else {
            return Err(self.transaction.lost_error());
        };
        match session.step(node, work.clone()) {
            Ok(reply) => {
                self.transaction.set_session(session);
                self.transaction.record().note_session(work, &Ok(reply.answer.clone()));
                Ok(Some(reply))
            }
            Err(Step::Failed(error)) => {
                self.transaction.set_session(session);
                if let CallError::Refused(ServerError::Database(error)) = &error {
                    self.transaction.record().note_session(work, &Err(error.clone()));
                }
                Err(called(error, None))
            }
            Err(Step::Lost { reason, with_primary }) => {
                // A change of the primary may not meet the next try; a limit of time would.
                self.transaction.set_retryable_conflict(self.remote.has_changed(node));
                session.abandon(node);
                if with_primary && self.transaction.record().is_complete() {
                    return self.run_again(node, work);
                }
                self.transaction.lose(reason);
                Err(self.transaction.lost_error())
            }
        }
    }

    /// The primary was lost with the transaction that was open there. Runs the transaction again on
    /// the next primary, with `next` after it. `None`: that is this node.
    fn run_again(&mut self, node: &Arc<Node>, next: Command) -> QueryResult<Option<Reply>> {
        let settings = self.session.settings(&mut self.local)?;
        let record = Arc::new(self.transaction.record().to_wire(Some(next.clone())));
        let opening = Opening {
            mode: BeginMode::Immediate,
            expected: None,
            savepoints: Vec::new(),
            first: Some(Command::Transaction(record)),
        };
        match self.remote.open_session(node, settings, opening) {
            Ok(Some((session, Some(Err(error))))) if conflict_of_call(&error).is_some() => {
                session.release();
                let error = self.conflict(node, called(error, None));
                Err(self.move_failed(error))
            }
            Ok(Some((session, first))) => {
                self.transaction.set_session(session);
                self.note_first(&next, first.as_ref());
                first.transpose().map_err(|error| called(error, None))
            }
            Ok(None) => {
                self.follow_role(node)?;
                self.replay_here(node).map(|()| None)
            }
            Err(error) => {
                self.transaction.set_retryable_conflict(true);
                self.transaction.lose(format!("its primary was lost: {error}"));
                Err(self.transaction.lost_error())
            }
        }
    }

    /// Records the statement that was sent with BEGIN.
    fn note_first(&mut self, work: &Command, first: Option<&First>) {
        match first {
            Some(Ok(reply)) => {
                let answer = reply.answer.clone();
                self.transaction.record().note_session(work.clone(), &Ok(answer));
            }
            Some(Err(CallError::Refused(ServerError::Database(error)))) => {
                self.transaction.record().note_session(work.clone(), &Err(error.clone()));
            }
            _ => {}
        }
    }

    /// The transaction was open on the file of a node that is not the primary any more.
    pub(in crate::connection) fn demoted(&mut self) -> Error {
        self.lose_local("this node is not the primary any more")
    }

    /// The transaction was open on this node's own file, and cannot continue.
    pub(in crate::connection) fn lose_local(&mut self, reason: &str) -> Error {
        self.local.roll_back();
        self.transaction.set_retryable_conflict(true);
        self.transaction.lose(reason);
        self.transaction.lost_error()
    }

    /// The connection is dropped: a transaction that is open on the primary ends at once.
    pub(in crate::connection) fn abandon_session(&mut self) {
        if let (Some(node), Some(session)) = (self.remote.node(), self.transaction.take_session()) {
            session.abandon(node);
        }
    }
}
