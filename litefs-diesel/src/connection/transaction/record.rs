//! What a transaction has done on a replica so far, so that the primary can run it again.

use std::collections::HashSet;
use std::sync::Arc;

use litefs_core::Position;
use litefs_rpc::sqlite::sql::{Verb, statements, tokens};
use litefs_rpc::wire::{
    Command, DatabaseError, Output, RecordedStep, RecordedTransaction, Repeated, Seen, Value,
};

use crate::access::Footprint;

/// The statements of a transaction and what its application saw.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Reads whose results are still those of the open snapshot, in order. They are digested when
    /// the transaction writes or leaves the node.
    reads: Vec<Command>,
    steps: Vec<RecordedStep>,
    size: usize,
    /// The position of the snapshot.
    snapshot: Option<Position>,
    /// Something was read that the primary cannot read again, or too much.
    incomplete: bool,
    /// A statement has written, or a savepoint was set.
    wrote: bool,
    /// A statement has inserted rows, if it has found any.
    inserted: bool,
    /// The root pages of the tables whose contents the primary may decide otherwise.
    undecided: HashSet<i64>,
}

/// One run of a statement.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) footprint: Arc<Footprint>,
    pub(super) params: Vec<Value>,
}

/// The most statements of a record. A longer transaction goes on in a session.
const MAX_STEPS: usize = 1_000;
/// The largest record, in bytes.
const MAX_SIZE: usize = 1 << 20;

impl Record {
    /// A transaction that reads this snapshot.
    pub(super) fn of_snapshot(snapshot: Option<Position>) -> Self {
        Self { snapshot, ..Self::default() }
    }

    /// Notes a read of the open snapshot. `None`: the primary cannot run it.
    pub(super) fn read(&mut self, work: Option<Command>) {
        match work {
            Some(work) if self.has_room_for(&work) => {
                self.size += work.size();
                self.reads.push(as_query(work));
            }
            _ => self.incomplete = true,
        }
    }

    /// Whether one more statement fits.
    pub(super) fn has_room_for(&self, work: &Command) -> bool {
        self.steps.len() + self.reads.len() < MAX_STEPS
            && self.size.saturating_add(work.size()) <= MAX_SIZE
    }

    /// The reads that are not digested yet.
    pub(super) fn take_reads(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.reads)
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    pub(super) fn set_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// Whether nothing was read or written.
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.steps.is_empty()
    }

    /// Whether the transaction had read nothing when it first wrote.
    pub(super) fn is_write_first(&self) -> bool {
        self.reads.is_empty() && !self.steps.iter().any(|step| step.reads)
    }

    /// Whether a statement has written. Then the steps set the savepoints.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Whether a statement is an INSERT.
    pub(super) fn inserted(&self) -> bool {
        self.inserted
    }

    /// Whether what a statement does depends on what the primary may decide otherwise.
    pub(super) fn is_undecided(&self, footprint: &Footprint) -> bool {
        footprint.reads_any(&self.undecided)
    }

    /// Adds a statement that ran, with its result.
    pub(super) fn push(
        &mut self,
        work: Command,
        reads: bool,
        result: &Result<Output, DatabaseError>,
        runs: &[Run],
    ) {
        let seen = Seen::of(result, is_ordered(&work));
        for Run { footprint, params } in runs {
            self.undecided.extend(footprint.written_otherwise(params));
            self.inserted |= footprint.inserts();
        }
        self.wrote |= !reads;
        self.size += work.size();
        self.steps.push(RecordedStep { work, reads, seen });
    }

    /// Adds a statement that ran in a session on the primary.
    pub(super) fn note_session(&mut self, work: Command, result: &Result<Output, DatabaseError>) {
        match &work {
            Command::Script(sql) if is_savepoint(sql) => self.push_savepoint(sql.clone()),
            // Of several statements, of DDL and of calls the results are not seen.
            Command::Execute(_)
            | Command::Query(_)
            | Command::Insert(_)
            | Command::Batch { .. }
                if self.has_room_for(&work) =>
            {
                self.push(work, false, result, &[]);
            }
            _ => self.incomplete = true,
        }
    }

    /// Adds a statement that sets or ends a savepoint.
    pub(super) fn push_savepoint(&mut self, sql: String) {
        let work = Command::Script(sql);
        let seen = Seen::of(&Ok(Output::Done), false);
        self.wrote = true;
        self.size += work.size();
        self.wrote = true;
        self.steps.push(RecordedStep { work, reads: false, seen });
    }

    /// The record as it is sent. `next` is run after it.
    pub(super) fn to_wire(&self, next: Option<Command>) -> RecordedTransaction {
        let (snapshot, steps) = (self.snapshot, self.steps.clone());
        RecordedTransaction { snapshot, steps, next: next.map(Box::new) }
    }

    /// The text of a step.
    pub(super) fn text_of(&self, step: usize) -> Option<&str> {
        self.steps.get(step)?.work.texts().next()
    }
}

/// A read as it is recorded: by its rows. How many rows it changes is said of an earlier statement,
/// on the primary of another connection's.
pub(super) fn as_query(read: Command) -> Command {
    match read {
        Command::Execute(statement) => Command::Query(statement),
        read => read,
    }
}

/// SQLite promises an order of rows where the text asks for one.
fn is_ordered(work: &Command) -> bool {
    work.texts().any(|sql| tokens(sql).any(|token| token.is("ORDER")))
}

/// The statements of a command and the parameters of each run.
pub(super) fn statements_of(work: &Command) -> Option<Vec<(&str, Vec<Value>)>> {
    let runs = |repeated: &Repeated| -> Vec<Vec<Value>> {
        repeated.runs().map(<[Value]>::to_vec).collect()
    };
    match work {
        Command::Execute(statement) | Command::Query(statement) => {
            Some(vec![(statement.sql.as_str(), statement.params.clone())])
        }
        Command::Insert(rows) => {
            Some(runs(rows).into_iter().map(|params| (rows.sql.as_str(), params)).collect())
        }
        Command::Batch { statements, .. } => {
            let all = statements.iter();
            Some(all.flat_map(|s| runs(s).into_iter().map(|p| (s.sql.as_str(), p))).collect())
        }
        _ => None,
    }
}

/// Whether the application sees rows, and not only how many were changed.
pub(super) fn returns_rows(work: &Command) -> bool {
    matches!(work, Command::Query(_) | Command::Batch { rows: true, .. })
}

fn is_savepoint(sql: &str) -> bool {
    let all = statements(sql);
    !all.is_empty() && all.iter().all(|statement| statement.verb() == Verb::Savepoint)
}
