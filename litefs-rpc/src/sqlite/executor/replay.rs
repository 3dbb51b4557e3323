//! Runs a recorded transaction again and compares what it comes to with what was seen.

use litefs_core::Position;

use super::connection::ExecutorConnection;
use crate::executor::Done;
use crate::sqlite::error::denied;
use crate::sqlite::run::run;
use crate::sqlite::sql::{SqlStatement, Verb, statements};
use crate::sqlite::text::{changes_rows, only_reads};
use crate::wire::{Command, DatabaseError, Output, RecordedStep, RecordedTransaction, ServerError};

/// How the savepoints begin that the executor makes itself.
const OWN_SAVEPOINTS: &str = "litefs_";

/// Refuses a record with a step that was not run on a replica.
pub(super) fn check_record(record: &RecordedTransaction) -> Result<(), ServerError> {
    let refused = record.steps.iter().find_map(|step| refused(&step.work));
    refused.map_or(Ok(()), |why| Err(denied(why.into())))
}

fn refused(work: &Command) -> Option<&'static str> {
    match work {
        Command::Transaction(_) => Some("a recorded transaction within another"),
        Command::Call(_) => Some("a procedure in a recorded transaction"),
        Command::Script(sql) => {
            statements(sql).iter().any(|statement| !is_savepoint(statement)).then_some(
                "a script in a recorded transaction that does more than to set savepoints of its \
                 own",
            )
        }
        _ => None,
    }
}

fn is_savepoint(statement: &SqlStatement<'_>) -> bool {
    let own = |name: &str| {
        name.get(..OWN_SAVEPOINTS.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OWN_SAVEPOINTS))
    };
    statement.verb() == Verb::Savepoint && !statement.savepoint_name().is_some_and(own)
}

/// Whether the steps may run in a transaction with other requests.
pub(super) fn may_share(record: &RecordedTransaction) -> bool {
    let shares = |step: &RecordedStep| match &step.work {
        Command::Execute(statement) | Command::Query(statement) => {
            changes_rows(&statement.sql) || only_reads(&step.work)
        }
        Command::Insert(rows) => changes_rows(&rows.sql),
        Command::Batch { statements, .. } => statements.iter().all(|s| changes_rows(&s.sql)),
        Command::Script(_) => true,
        Command::Transaction(_) | Command::Call(_) => false,
    };
    record.next.is_none() && record.steps.iter().all(shares)
}

impl ExecutorConnection {
    /// Runs the steps in the open transaction. After an error the caller rolls back. `current` is
    /// the position that the transaction sees, if it is known: the reads that saw the same position
    /// need not run again.
    pub(super) fn replay(
        &mut self,
        record: &RecordedTransaction,
        current: Option<Position>,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let mut unchanged = record.snapshot.is_some() && record.snapshot == current;
        for (index, step) in record.steps.iter().enumerate() {
            if unchanged && step.reads {
                continue;
            }
            unchanged = false;
            let result = match self.replay_step(&step.work, max_rows) {
                Ok(output) => Ok(output),
                Err(ServerError::Database(error)) if !error.symptom().is_suspicious() => Err(error),
                Err(refusal) => return Err(refusal),
            };
            if !step.seen.is(&result) || !self.is_in_transaction() {
                return Err(ServerError::Conflict {
                    step: index,
                    now: describe(&result),
                    position: None,
                });
            }
        }
        let counted = |s: &SqlStatement<'_>| match s.verb() {
            Verb::Read => !self.may_write_in_reads,
            verb => matches!(verb, Verb::Change | Verb::Savepoint),
        };
        let all_counted = record
            .commands()
            .all(|work| work.texts().all(|sql| statements(sql).iter().all(counted)));
        self.done(Output::Done, Some(before).filter(|_| all_counted))
    }

    fn replay_step(&mut self, work: &Command, max_rows: usize) -> Result<Output, ServerError> {
        match work {
            // Many rows are merged.
            Command::Insert(rows) => {
                let mut before = self.total_changes;
                self.insert(rows, &mut before).map(|done| done.answer)
            }
            work => run(&mut self.sqlite, work, max_rows),
        }
    }
}

/// What a statement came to, for an error message.
fn describe(result: &Result<Output, DatabaseError>) -> String {
    match result {
        Ok(Output::Count(count)) => format!("changes {count} rows now"),
        Ok(Output::Counts(counts)) => {
            format!("changes {} rows now", counts.iter().sum::<u64>())
        }
        Ok(Output::Rows(rows)) => format!("returns {} rows now, of which some differ", rows.len()),
        Err(error) | Ok(Output::Failed(error)) => format!("fails now: {error}"),
        Ok(Output::Done | Output::NotKept | Output::Value(_)) => "ends otherwise now".into(),
    }
}
