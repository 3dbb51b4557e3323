//! Applying a write once: its outcome is kept in the write's own transaction.

use diesel::connection::SimpleConnection;

use super::error::other;
use super::executor::SqliteExecutor;
use super::outcomes::{Kept, Outcomes};
use super::ready::{Ready, changes_rows, has_several};
use super::sql::{SqlStatement, Verb, statements};
use crate::executor::{Done, Wrote};
use crate::wire::{Delivery, Refusal, Request, RequestId, Settings, Work};

impl SqliteExecutor {
    pub(super) fn once(&mut self, request: &Request) -> Result<Done, Refusal> {
        let Request { id, delivery, again, settings, work } = request;
        self.check_alone(work)?;
        if *delivery == Delivery::AtMostOnce {
            return self.alone(settings, work);
        }
        if *again && let Some(kept) = self.kept(*id)? {
            return kept;
        }
        let ready = self.ready(settings)?;
        match Once::of(work) {
            Once::Repeatable => self.alone(settings, work),
            Once::Whole if ready.checks_at_commit(work).map_err(super::from_diesel)? => self.marked(request),
            Once::Whole => match self.whole(request)? {
                Some(done) => Ok(done),
                None => self.marked(request),
            },
            Once::Marked => self.marked(request),
        }
    }

    /// Runs work in one transaction with the record of its outcome. `None`: a script's statement has taken back those
    /// before it (`OR ROLLBACK`), which outside of a transaction would stay; nothing is applied.
    pub(super) fn whole(&mut self, request: &Request) -> Result<Option<Done>, Refusal> {
        let max_rows = self.max_rows;
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        ready.mark_rowid(&request.work)?;
        // What only reads, as far as its text tells, may call a function that writes.
        let begin = if only_reads(&request.work) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        ready.connection.batch_execute(begin).map_err(super::from_diesel)?;
        let result = ready.part_or_all(&request.work, max_rows);
        if matches!(result, Err(Refusal::Database(_))) && has_several(&request.work) {
            return Ok(None);
        }
        let committed = result.and_then(|done| {
            // What has changed nothing may as well run again.
            let keep = done.wrote != Wrote::Nothing && ready.native.is_writing();
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
            Err(Refusal::GivenUp) => self.kept(request.id)?.unwrap_or(Err(Refusal::GivenUp)).map(Some),
            committed => committed.map(Some),
        }
    }

    /// Runs a script that makes its own transactions, between two records: that it has begun, and what it came to.
    pub(super) fn marked(&mut self, request: &Request) -> Result<Done, Refusal> {
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        let begun = ready.note(|connection| outcomes.keep(connection, request.id, &Kept::Begun))?;
        if begun.is_none() {
            return self.kept(request.id)?.unwrap_or(Err(Refusal::GivenUp));
        }
        let done = self.alone(&request.settings, &request.work);
        let ready = self.ready(&request.settings)?;
        let done = ready.failed(done)?;
        let kept = Kept::Applied(done.answer.clone(), done.effects);
        let updated =
            ready.note(|connection| Outcomes::update(connection, request.id, &kept).map(|()| Some(1)));
        // The script has run, so this is no refusal to run it.
        updated.map_err(|refusal| Refusal::Unproven {
            reason: format!("the script has run, but not recorded what it came to: {refusal}"),
        })?;
        Ok(done)
    }

    /// What was kept of a write, as its answer.
    pub(super) fn kept(&mut self, id: RequestId) -> Result<Option<Result<Done, Refusal>>, Refusal> {
        self.ready(&Settings::default())?.kept(id)
    }
}

impl Ready {
    /// What was kept of a write, as its answer.
    pub(super) fn kept(&mut self, id: RequestId) -> Result<Option<Result<Done, Refusal>>, Refusal> {
        let kept = Outcomes::find(&mut self.connection, id).map_err(super::from_diesel)?;
        Ok(kept.map(|kept| match kept {
            Kept::Applied(answer, effects) => Ok(Done { answer, effects, wrote: Wrote::Nothing }),
            Kept::Begun => Err(Refusal::Interrupted),
            Kept::GivenUp => Err(Refusal::GivenUp),
        }))
    }
}

/// How a write can be applied once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Once {
    /// In one transaction with its record.
    Whole,
    /// It cannot run inside a transaction, and applied twice it is as applied once: VACUUM and PRAGMAs.
    Repeatable,
    /// A script with transactions or PRAGMAs of its own.
    Marked,
}

impl Once {
    pub(super) fn of(work: &Work) -> Self {
        let all = match work {
            Work::Batch { .. } | Work::Insert(_) => return Once::Whole,
            // By far the most common beginnings need no look at the rest.
            Work::Execute(statement) | Work::Query(statement) if changes_rows(&statement.sql) => {
                return Once::Whole;
            }
            Work::Execute(statement) | Work::Query(statement) => statements(&statement.sql),
            Work::Script(sql) => statements(sql),
        };
        let fits = |s: &SqlStatement<'_>| {
            matches!(s.verb(), Verb::Read | Verb::Change | Verb::Schema | Verb::Unknown)
        };
        let repeats = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Pragma | Verb::Vacuum);
        if all.iter().all(repeats) {
            Once::Repeatable
        } else if all.iter().all(fits) {
            Once::Whole
        } else {
            Once::Marked
        }
    }
}

fn only_reads(work: &Work) -> bool {
    let reads = |sql: &str| statements(sql).iter().all(|statement| statement.verb() == Verb::Read);
    matches!(work, Work::Execute(statement) | Work::Query(statement) if reads(&statement.sql))
}
