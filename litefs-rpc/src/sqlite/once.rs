//! Applying a write once: its outcome is kept in the write's own transaction.

use diesel::connection::SimpleConnection;

use super::error::other;
use super::executor::SqliteExecutor;
use super::outcomes::{Outcomes, StoredOutcome};
use super::ready::{Ready, changes_rows, has_several};
use super::sql::{SqlStatement, Verb, statements};
use crate::executor::{CommitExpectation, Done};
use crate::wire::{Command, Delivery, Request, RequestId, ServerError, Settings};

impl SqliteExecutor {
    pub(super) fn once(&mut self, request: &Request) -> Result<Done, ServerError> {
        let Request { id, delivery, again, settings, work } = request;
        self.check_alone(work)?;
        if *delivery == Delivery::AtMostOnce {
            return self.alone(settings, work);
        }
        if *again && let Some(kept) = self.kept(*id)? {
            return kept;
        }
        let ready = self.ready(settings)?;
        match Idempotency::of(work) {
            Idempotency::Repeatable => self.alone(settings, work),
            Idempotency::Whole if ready.checks_at_commit(work).map_err(super::from_diesel)? => {
                self.marked(request)
            }
            Idempotency::Whole => match self.whole(request)? {
                Some(done) => Ok(done),
                None => self.marked(request),
            },
            Idempotency::Marked => self.marked(request),
        }
    }

    /// Runs work in one transaction with the record of its outcome. `None`: a script's statement has taken back those
    /// before it (`OR ROLLBACK`), which outside of a transaction would stay; nothing is applied.
    pub(super) fn whole(&mut self, request: &Request) -> Result<Option<Done>, ServerError> {
        let max_rows = self.max_rows;
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        ready.mark_rowid(&request.work)?;
        // What only reads, as far as its text tells, may call a function that writes.
        let begin = if only_reads(&request.work) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        ready.connection.batch_execute(begin).map_err(super::from_diesel)?;
        let result = ready.part_or_all(&request.work, max_rows);
        if matches!(result, Err(ServerError::Database(_))) && has_several(&request.work) {
            return Ok(None);
        }
        let committed = result.and_then(|done| {
            // What has changed nothing may as well run again.
            let keep = done.wrote != CommitExpectation::Unchanged && ready.native.is_writing();
            if keep {
                ready.keep(outcomes, request.id, &done)?;
            }
            ready.connection.batch_execute("COMMIT").map_err(super::from_diesel)?;
            Ok(done)
        });
        if committed.is_err() {
            // Fails only where SQLite has rolled back already.
            let _ = ready.connection.batch_execute("ROLLBACK");
        }
        match committed {
            // Somebody was faster: that is what it came to.
            Err(ServerError::Fenced) => self.kept(request.id)?.unwrap_or(Err(ServerError::Fenced)).map(Some),
            committed => committed.map(Some),
        }
    }

    /// Runs a script that makes its own transactions, between two records: that it has begun, and what it came to.
    pub(super) fn marked(&mut self, request: &Request) -> Result<Done, ServerError> {
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        let begun = ready.note(|connection| outcomes.keep(connection, request.id, &StoredOutcome::Begun))?;
        if begun.is_none() {
            return self.kept(request.id)?.unwrap_or(Err(ServerError::Fenced));
        }
        let done = self.alone(&request.settings, &request.work);
        let ready = self.ready(&request.settings)?;
        let done = ready.failed(done)?;
        let kept = StoredOutcome::Applied(done.answer.clone(), done.effects);
        let updated =
            ready.note(|connection| Outcomes::update(connection, request.id, &kept).map(|()| Some(1)));
        // The script has run, so this is no refusal to run it.
        updated.map_err(|refusal| ServerError::Unconfirmed {
            reason: format!("the script has run, but not recorded what it came to: {refusal}"),
        })?;
        Ok(done)
    }

    /// What was kept of a write, as its answer.
    pub(super) fn kept(&mut self, id: RequestId) -> Result<Option<Result<Done, ServerError>>, ServerError> {
        self.ready(&Settings::default())?.kept(id)
    }
}

impl Ready {
    /// What was kept of a write, as its answer.
    pub(super) fn kept(&mut self, id: RequestId) -> Result<Option<Result<Done, ServerError>>, ServerError> {
        let kept = Outcomes::find(&mut self.connection, id).map_err(super::from_diesel)?;
        Ok(kept.map(|kept| match kept {
            StoredOutcome::Applied(answer, effects) => {
                Ok(Done { answer, effects, wrote: CommitExpectation::Unchanged })
            }
            StoredOutcome::Begun => Err(ServerError::Interrupted),
            StoredOutcome::Fenced => Err(ServerError::Fenced),
        }))
    }
}

/// How a write can be applied once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idempotency {
    /// In one transaction with its record.
    Whole,
    /// It cannot run inside a transaction, and applied twice it is as applied once: VACUUM and PRAGMAs.
    Repeatable,
    /// A script with transactions or PRAGMAs of its own.
    Marked,
}

impl Idempotency {
    pub(super) fn of(work: &Command) -> Self {
        let all = match work {
            Command::Batch { .. } | Command::Insert(_) => return Idempotency::Whole,
            // By far the most common beginnings need no look at the rest.
            Command::Execute(statement) | Command::Query(statement) if changes_rows(&statement.sql) => {
                return Idempotency::Whole;
            }
            Command::Execute(statement) | Command::Query(statement) => statements(&statement.sql),
            Command::Script(sql) => statements(sql),
        };
        let fits = |s: &SqlStatement<'_>| {
            matches!(s.verb(), Verb::Read | Verb::Change | Verb::Schema | Verb::Unknown)
        };
        let repeats = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Pragma | Verb::Vacuum);
        if all.iter().all(repeats) {
            Idempotency::Repeatable
        } else if all.iter().all(fits) {
            Idempotency::Whole
        } else {
            Idempotency::Marked
        }
    }
}

fn only_reads(work: &Command) -> bool {
    let reads = |sql: &str| statements(sql).iter().all(|statement| statement.verb() == Verb::Read);
    matches!(work, Command::Execute(statement) | Command::Query(statement) if reads(&statement.sql))
}
