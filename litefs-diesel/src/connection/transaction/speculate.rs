//! Runs a transaction on a replica's snapshot, writes too, and sends it to the primary with its
//! COMMIT.
//!
//! SQLite in WAL mode lets a replica write inside a transaction; LiteFS refuses COMMIT only. So the
//! transaction runs here and is recorded: each statement with a digest of what the application saw.
//! COMMIT takes it back and sends the record in one request. The primary runs it again, compares,
//! and commits. A statement whose result here cannot be the primary's opens a transaction on the
//! primary, and what is recorded goes along.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use litefs_rpc::sqlite::run;
use litefs_rpc::wire::{Command, Output, ProtocolVersion, Reply, ServerError, SessionCounters};

use super::super::LiteFsConnection;
use super::super::decide::may_write::MayWrite;
use super::super::decide::phase::Phase;
use super::super::local::is_writable;
use super::record::{Run, as_query, returns_rows, statements_of};
use super::state::LocalPart;
use crate::access::{Access, Class, Control, Footprint};
use crate::error::{called, conflict_of};
use crate::failure::Failure;
use crate::node::Node;
use crate::node::diagnosis::explained;
use crate::router::Route;

/// The most pages that a transaction on a replica's snapshot may change, in memory.
const MAX_PAGES: u32 = 4_096;

impl LiteFsConnection {
    /// Runs a statement of a transaction that is not open on the primary: on this replica's
    /// snapshot, or on the primary from the recorded beginning. `None`: this node is the primary
    /// now, and the transaction is open on its file.
    pub(in crate::connection) fn advance(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        match self.speculate(node, class, &work)? {
            Some(result) => result.map(Some),
            None => self.move_to_primary(node, Some(work)),
        }
    }

    /// Notes a read of a replica's snapshot. `None`: the primary cannot run it.
    pub(in crate::connection) fn note_read(&mut self, work: Option<Command>) {
        self.transaction.record().read(work);
    }

    /// Before a statement that asks for what only the primary knows, or changes a setting: the
    /// transaction is opened there.
    pub(in crate::connection) fn leave_snapshot(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        if self.phase() == Phase::Speculating
            && let Some(reply) = self.move_to_primary(node, None)?
        {
            let inserted = self.transaction.record().inserted();
            self.session.ran_record(reply.effects, inserted);
        }
        if self.phase() == Phase::Remote {
            // Another primary may assign another rowid, and the record would not show it.
            self.transaction.record().set_incomplete();
        }
        Ok(())
    }

    /// `None`: the statement has to run on the primary.
    fn speculate(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        work: &Command,
    ) -> QueryResult<Option<QueryResult<Reply>>> {
        if !self.may_speculate(node, class)? {
            return Ok(None);
        }
        let read = (class.access == Access::Read).then(|| as_query(work.clone()));
        let work = read.as_ref().unwrap_or(work);
        let Some(runs) = self.runs_of(work)? else { return Ok(None) };
        let certain = runs.iter().all(|run| run.footprint.is_certain()) && !returns_rows(work);
        match self.phase() {
            // Nothing was read: the primary decides all that is not certain.
            Phase::Pending if !certain => return Ok(None),
            Phase::Pending => {
                if self.visibility.before_local_read(node)? == Route::Primary {
                    return Ok(None);
                }
                self.begin_local(node).map_err(|error| explained(node, error))?;
            }
            Phase::LocalReads | Phase::Speculating => {}
            _ => return Ok(None),
        }
        let record = self.transaction.record();
        let write_first = record.is_write_first();
        let fits = record.is_complete() && record.has_room_for(work) && (certain || !write_first);
        let decided = runs.iter().all(|run| {
            let shown = returns_rows(work)
                && run.footprint.shows_what_only_the_primary_decides(&run.params);
            !shown && !record.is_undecided(&run.footprint)
        });
        if !fits || !decided || !self.open_local_part(node)? {
            return Ok(None);
        }
        self.run_recorded(node, class, work, &runs, write_first)
    }

    /// What holds for the whole transaction.
    fn may_speculate(&mut self, node: &Arc<Node>, class: Class) -> QueryResult<bool> {
        let suitable = !class.guessed
            && !class.asks_session
            && !class.calls_application
            && !class.split
            && class.single
            && (class.access == Access::Read || class.counts);
        if !suitable
            || is_writable(node)
            || self.route_override.is_set()
            || self.transaction.wrote_locally()
            || !node.options.transactions.is_optimistic()
            || !self.speaks_of_records(node)
        {
            return Ok(false);
        }
        let settings = self.session.settings(&mut self.local)?;
        // SQLite clears it at each COMMIT, so it would have to be part of the record.
        Ok(!settings.defer_foreign_keys)
    }

    /// Whether the primary of the moment knows recorded transactions, as far as this node knows.
    pub(super) fn speaks_of_records(&mut self, node: &Node) -> bool {
        self.remote.version(node).is_none_or(|version| version >= ProtocolVersion::V2)
    }

    /// The statements of a command. `None`: one of them cannot run on a replica's snapshot.
    fn runs_of(&mut self, work: &Command) -> QueryResult<Option<Vec<Run>>> {
        let Some(statements) = statements_of(work) else { return Ok(None) };
        let mut runs = Vec::with_capacity(statements.len());
        for (sql, params) in statements {
            let footprint = match self.classes.footprint(sql) {
                Some(footprint) => footprint,
                None => {
                    let _muted = self.local.mute();
                    let footprint = Arc::new(Footprint::of(self.local.sqlite(), sql)?);
                    self.classes.put_footprint(sql.to_owned(), Arc::clone(&footprint));
                    footprint
                }
            };
            if footprint.is_unsuitable() {
                return Ok(None);
            }
            runs.push(Run { footprint, params });
        }
        Ok(Some(runs))
    }

    /// Opens the transaction for writes, if it is not. `false`: its turn does not come in time, or
    /// a limit has ended it.
    fn open_local_part(&mut self, node: &Arc<Node>) -> QueryResult<bool> {
        match self.phase() {
            Phase::Speculating => return Ok(self.transaction.local_part().is_some()),
            Phase::LocalReads => {}
            _ => return Ok(false),
        }
        let limit = node.options.speculation_limit;
        let Some(turn) = node.turns.take(&node.io, self.local.native().ender(), limit) else {
            return Ok(false);
        };
        self.digest_reads(node)?;
        if !self.transaction.record().is_complete() {
            return Ok(false);
        }
        let settings = self.local.begin_speculation(MAX_PAGES)?;
        self.record_savepoints();
        self.transaction.set_speculating(LocalPart { turn, settings });
        Ok(true)
    }

    /// Runs the reads of the open snapshot again, for their digests: the results are the same. What
    /// the application has seen of one that depends on chance or on the time is gone.
    pub(super) fn digest_reads(&mut self, node: &Node) -> QueryResult<()> {
        if self.phase() != Phase::LocalReads {
            return Ok(());
        }
        for work in self.transaction.record().take_reads() {
            let Some(runs) = self.runs_of(&work).unwrap_or_default() else {
                self.transaction.record().set_incomplete();
                continue;
            };
            if runs.iter().all(|run| run.footprint.touches_nothing()) {
                continue;
            }
            if runs.iter().any(|run| run.footprint.is_indeterminate()) {
                self.transaction.record().set_incomplete();
                continue;
            }
            let _muted = self.local.mute();
            let result = match run(self.local.sqlite(), &work, node.options.limits.max_rows()) {
                Ok(output) => Ok(output),
                Err(ServerError::Database(error)) if !error.symptom().is_suspicious() => Err(error),
                Err(_) => {
                    self.transaction.record().set_incomplete();
                    continue;
                }
            };
            self.transaction.record().push(work, true, &result, &runs);
        }
        Ok(())
    }

    /// `None`: the statement has to run on the primary, and nothing of the transaction is open here
    /// any more.
    fn run_recorded(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        work: &Command,
        runs: &[Run],
        write_first: bool,
    ) -> QueryResult<Option<QueryResult<Reply>>> {
        let max_rows = node.options.limits.max_rows();
        let result = {
            let _muted = self.local.mute();
            let open = self.transaction.local_part().and_then(|part| part.turn.statement());
            if open.is_none() {
                None
            } else {
                // The lock is held by the guard, which borrows the transaction only.
                Some(run(self.local.sqlite(), work, max_rows))
            }
        };
        let Some(result) = result else {
            self.take_back();
            return Ok(None);
        };
        let result = match result {
            Ok(output) => Ok(output),
            // It does not fit into memory, or another process has the lock: not the statement's
            // fault. An error of a statement that has seen nothing before is the primary's to tell.
            Err(ServerError::Database(error))
                if error.symptom() == litefs_rpc::diagnosis::Symptom::Statement
                    && !write_first
                    && !self.local.is_autocommit() =>
            {
                Err(error)
            }
            Err(_) => {
                self.take_back();
                return Ok(None);
            }
        };
        let reads = class.access == Access::Read;
        self.transaction.record().push(work.clone(), reads, &result, runs);
        match result {
            Ok(answer) => {
                let effects = self.effects_of(&answer)?;
                Ok(Some(Ok(Reply { answer, position: None, effects })))
            }
            Err(error) => Ok(Some(Err(called(ServerError::Database(error).into(), None)))),
        }
    }

    /// What the session functions say after a statement that ran here. SQLite itself counts it in
    /// `total_changes()`.
    fn effects_of(&mut self, answer: &Output) -> QueryResult<SessionCounters> {
        let _muted = self.local.mute();
        let [last_insert_rowid, changes, _] =
            litefs_rpc::sqlite::session_functions(self.local.sqlite())?;
        let inserted = !matches!(answer, Output::Count(0));
        Ok(SessionCounters { last_insert_rowid, changes, total_changes: 0, inserted })
    }

    /// A savepoint in a recorded transaction.
    pub(super) fn control_recorded(&mut self, control: &Control, sql: &str) -> QueryResult<()> {
        let open = self.transaction.local_part().and_then(|part| part.turn.statement());
        if open.is_some() {
            self.local.batch_execute(sql)?;
        }
        drop(open);
        self.transaction.note_control(control)?;
        self.transaction.record().push_savepoint(sql.to_owned());
        Ok(())
    }

    /// Takes back what was written here.
    pub(in crate::connection) fn take_back(&mut self) {
        if let Some(LocalPart { turn, settings }) = self.transaction.take_local_part() {
            self.local.end_speculation(settings);
            drop(turn);
        }
    }

    /// COMMIT of a recorded transaction.
    pub(super) fn submit(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        self.session.settings(&mut self.local)?;
        self.take_back();
        let record = Arc::new(self.transaction.record().to_wire(None));
        match self.forward(node, MayWrite::Uncounted, Command::Transaction(record)) {
            Ok(Some(reply)) => {
                let inserted = self.transaction.record().inserted();
                self.session.ran_record(reply.effects, inserted);
                self.transaction.end();
                Ok(())
            }
            // This node is the primary now.
            Ok(None) => {
                self.follow_role(node)?;
                self.replay_here(node)?;
                let _muted = self.local.mute();
                self.control_local(node, &Control::Commit, "COMMIT")
            }
            // As in SQLite the transaction stays open: the caller can correct it or roll back.
            Err(error) if is_foreign_key_violation(&error) => {
                if self.move_to_primary(node, None)?.is_some() {
                    return Err(error);
                }
                self.control_local(node, &Control::Commit, "COMMIT")
            }
            Err(error) => {
                let error = self.conflict(node, error);
                let again = matches!(
                    Failure::of(&error),
                    Some(Failure::SnapshotMoved | Failure::TransactionLost)
                );
                self.transaction.set_retryable_conflict(again);
                self.transaction.end_failed_commit();
                Err(error)
            }
        }
    }

    /// Runs the record on this node's own file, which takes writes now.
    pub(super) fn replay_here(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        let record = self.transaction.record().to_wire(None);
        self.local
            .batch_execute_muted("BEGIN IMMEDIATE")
            .map_err(|error| explained(node, error))?;
        for (index, step) in record.steps.iter().enumerate() {
            let _muted = self.local.mute();
            let result = match run(self.local.sqlite(), &step.work, usize::MAX) {
                Ok(output) => Ok(output),
                Err(ServerError::Database(error)) => Err(error),
                Err(refusal) => {
                    self.local.roll_back();
                    return Err(self.move_failed(called(refusal.into(), None)));
                }
            };
            if !step.seen.is(&result) || self.local.is_autocommit() {
                self.local.roll_back();
                let now = "has another result now that this node is the primary".into();
                let refusal = ServerError::Conflict { step: index, now, position: None };
                let error = self.conflict(node, called(refusal.into(), None));
                return Err(self.move_failed(error));
            }
        }
        self.transaction.set_local(None, self.local.prepared_for());
        Ok(())
    }

    /// A conflict names the statement, and the next try reads what has changed.
    pub(super) fn conflict(&mut self, node: &Arc<Node>, error: Error) -> Error {
        let Some((step, position)) = conflict_of(&error) else { return error };
        if let Some(position) = position {
            self.visibility.note_write(node, position);
        }
        let text = self.transaction.record().text_of(step).unwrap_or_default();
        Failure::SnapshotMoved
            .error(format!("{error} ({text}); nothing of the transaction is applied: run it again"))
    }
}

/// What COMMIT returns for a deferred key that is not satisfied.
fn is_foreign_key_violation(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
}
