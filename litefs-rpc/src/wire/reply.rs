//! Answers: outputs, outcomes and errors.

use std::fmt;

use litefs_core::Position;
use serde::{Deserialize, Serialize};

use super::{ProcedureFault, Value};
use crate::diagnosis::Symptom;

/// The primary's answer to a command that it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The output of the command.
    pub answer: Output,
    /// The primary's position after the commit: a read that must see this write waits for it.
    /// `None` inside a transaction, where nothing is committed yet.
    pub position: Option<Position>,
    /// SQLite's session functions after the command.
    pub effects: SessionCounters,
}

/// The output of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Output {
    /// The number of changed rows.
    Count(u64),
    /// The number of changed rows of each statement of a batch, in order.
    Counts(Vec<u64>),
    /// The rows of a query.
    Rows(RowSet),
    /// A script ran to its end.
    Done,
    /// The command failed, but a part of it is applied: the statements of a script before the one
    /// that failed, or the rows before the one that violated a constraint (`OR FAIL`).
    Failed(DatabaseError),
    /// The command was applied before, and its rows were too large to store.
    NotKept,
    /// The encoded result of a procedure. Since protocol version 2.
    Value(Vec<u8>),
}

/// What became of a write, as recorded in the primary's database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is applied, once, with this result.
    Applied(Output, SessionCounters),
    /// It is not applied, and its id is fenced: a late retry is rejected.
    NotApplied,
    /// A script that cannot run as one transaction was interrupted: some of its statements may be
    /// applied.
    Interrupted,
}

/// An outcome and the position at which it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResolvedOutcome {
    /// What became of the write.
    pub outcome: Outcome,
    /// A read that must see the outcome waits for this position.
    pub position: Position,
}

/// The rows of a query, row after row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowSet {
    /// The columns' names, in order. Empty where no row was returned.
    pub columns: Vec<String>,
    /// `columns.len()` values for each row.
    pub values: Vec<Value>,
}

impl RowSet {
    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.columns.len()).unwrap_or(0)
    }

    /// The bytes that the values add to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.values.iter().map(Value::size).sum()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether the values fill whole rows; a message that breaks this is malformed.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        match self.columns.len() {
            0 => self.values.is_empty(),
            columns => self.values.len().is_multiple_of(columns),
        }
    }
}

/// The answer to a replica's long poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrimaryReport {
    /// The primary's position.
    pub position: Position,
    /// A caller waits for the replica's next report: poll again immediately.
    pub awaited: bool,
    /// The position at which the primary's term started, or shortly after: later transactions are
    /// its own.
    pub term_start: Position,
    /// The replica's position is in this primary's history.
    pub shared: bool,
}

/// SQLite's session functions after a write, <https://www.sqlite.org/lang_corefunc.html>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounters {
    /// `last_insert_rowid()`
    pub last_insert_rowid: i64,
    /// `changes()`
    pub changes: i64,
    /// Growth of `total_changes()`. Zero: no row was written, not even by a trigger.
    pub total_changes: i64,
    /// Whether this command set `last_insert_rowid`. An upsert may have updated or ignored the row.
    pub inserted: bool,
}

/// The primary, as far as the refusing node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryHint {
    /// The primary's LiteFS host name.
    pub node: String,
    /// Where its RPC server listens, `host:port`.
    pub address: String,
}

/// Why the server refused a request. Each variant says whether the command was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// This node is not the primary. The command was not applied.
    #[error(
        "this node is not the primary{}",
        .hint
            .as_ref()
            .map(|hint| format!("; it is {} at {}", hint.node, hint.address))
            .unwrap_or_default()
    )]
    NotPrimary {
        /// The primary, where known.
        hint: Option<PrimaryHint>,
    },
    /// SQLite refused the statement. It was not applied; the statements of a script before it were.
    #[error("{0}")]
    Database(DatabaseError),
    /// The commit was made, but LiteFS did not confirm it. The command may or may not be applied.
    #[error("the commit was not confirmed by LiteFS: {reason}")]
    Unconfirmed {
        /// What was missing.
        reason: String,
    },
    /// Too much is queued. The command was not applied and may be sent again.
    #[error("the primary's queue is full ({limit} waiting)")]
    Overloaded {
        /// The queue's limit.
        limit: usize,
    },
    /// The deadline passed before the work began. It was not applied.
    #[error("the deadline passed before the work began")]
    TooLate,
    /// The server is shutting down. The command was not applied and may be sent again.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The statement is not allowed through the RPC port. It was not applied.
    #[error("refused: {what}")]
    Denied {
        /// What is refused and why.
        what: String,
    },
    /// A limit was exceeded. The command was not applied.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// Its size.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction's local reads saw another position than the primary's. Nothing was applied;
    /// run it again.
    #[error("the database moved on (to {actual}) since this transaction read it (at {expected})")]
    SnapshotMoved {
        /// What the transaction read.
        expected: Position,
        /// The primary's position.
        actual: Position,
    },
    /// Its outcome was asked for before it arrived, so its id was fenced. It was not applied.
    #[error("the write was given up before it arrived, and is not applied")]
    Fenced,
    /// A script was interrupted when it was sent the first time: some of its statements may be
    /// applied.
    #[error(
        "the script was interrupted when it ran the first time; some of its statements may be \
         applied"
    )]
    Interrupted,
    /// The handoff failed. This node is still the primary.
    #[error("the primary was not handed over: {reason}")]
    HandoffFailed {
        /// Why.
        reason: String,
    },
    /// The write is committed on the primary, but fewer replicas have it than were asked for.
    #[error("{reached} of {wanted} replicas have the commit")]
    NotReplicated {
        /// How many have it.
        reached: usize,
        /// How many should.
        wanted: usize,
    },
    /// The session does not exist: it was rolled back.
    #[error("the transaction was rolled back: {reason}")]
    SessionLost {
        /// Why.
        reason: String,
    },
    /// The node's disk is full. The command was not applied, and succeeds once there is room.
    #[error("{reason}: the disk of node {node} has no room for it")]
    DiskFull {
        /// The node's LiteFS host name.
        node: String,
        /// SQLite's message.
        reason: String,
    },
    /// The node cannot use its database, although it is the primary and its mount is served. The
    /// command was not applied.
    #[error(
        "{reason}: node {node}, which is the primary, cannot use its file; its disk may be full \
         or broken"
    )]
    Io {
        /// The node's LiteFS host name.
        node: String,
        /// SQLite's message.
        reason: String,
    },
    /// A statement of a recorded transaction has another result on the primary than on the replica
    /// where it ran. Nothing was applied; run the transaction again. Since protocol version 2.
    #[error(
        "another transaction has changed what this one has seen: its statement {} {now}",
        step + 1
    )]
    Conflict {
        /// The index of the statement among the steps of the record.
        step: usize,
        /// What it comes to on the primary.
        now: String,
        /// The primary's position. A transaction that reads it or a later one does not lose to the
        /// same change again. `None`: it is not known.
        position: Option<Position>,
    },
    /// A procedure could not be run, or did not end as it must. Nothing was applied. Since protocol
    /// version 2.
    #[error("on node {node} the procedure {procedure:?} {fault}")]
    Procedure {
        /// Its name.
        procedure: String,
        /// The node's LiteFS host name.
        node: String,
        /// What is wrong.
        fault: ProcedureFault,
    },
}

impl ServerError {
    pub(crate) fn unconfirmed(reason: impl fmt::Display) -> Self {
        Self::Unconfirmed { reason: reason.to_string() }
    }

    pub(crate) fn handoff_failed(reason: impl fmt::Display) -> Self {
        Self::HandoffFailed { reason: reason.to_string() }
    }

    /// The same; a conflict with the position that the primary had come to.
    pub(crate) fn at(mut self, current: Option<Position>) -> Self {
        if let Self::Conflict { position, .. } = &mut self {
            *position = current;
        }
        self
    }

    /// Whether the transaction was lost with its primary or with the connection to it. The same
    /// transaction may run again on the next one; after a limit of time it would meet that again.
    #[must_use]
    pub fn is_lost_with_primary(&self) -> bool {
        let Self::SessionLost { reason } = self else { return false };
        [Self::LOST_BY_DEMOTION, Self::LOST_WITH_CONNECTION].contains(&reason.as_str())
    }

    /// Why a session is lost: its node is no longer the primary.
    pub(crate) const LOST_BY_DEMOTION: &str = "the node is no longer the primary";
    /// Why a session is lost: its connection was.
    pub(crate) const LOST_WITH_CONNECTION: &str = "its connection was lost";

    /// The same; an error of a procedure with the node where it is.
    pub(crate) fn on(mut self, name: impl FnOnce() -> String) -> Self {
        if let Self::Procedure { node, .. } = &mut self {
            *node = name();
        }
        self
    }

    /// Classifies the message, if this is an error of SQLite.
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        match self {
            Self::Database(error) => error.symptom(),
            _ => Symptom::Statement,
        }
    }
}

/// An error of the primary's SQLite, in the terms of `diesel::result::Error::DatabaseError`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseError {
    /// Which kind of error.
    pub kind: DatabaseErrorKind,
    /// SQLite's message.
    pub message: String,
}

impl DatabaseError {
    /// Classifies the message.
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        Symptom::of(&self.message)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The kinds of database errors that Diesel's SQLite connection distinguishes, and two that are not
/// SQLite's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DatabaseErrorKind {
    /// A unique or primary key constraint.
    UniqueViolation,
    /// A foreign key constraint.
    ForeignKeyViolation,
    /// A NOT NULL constraint.
    NotNullViolation,
    /// A CHECK constraint.
    CheckViolation,
    /// The bound values could not be used.
    Serialization,
    /// A value of the result could not be read.
    Deserialization,
    /// Everything else; the message says what.
    Other,
    /// `NotFound`, of a procedure, as all that follow. Since protocol version 2.
    NotFound,
    /// `RollbackTransaction`
    RollbackTransaction,
    /// `AlreadyInTransaction`
    AlreadyInTransaction,
    /// `NotInTransaction`
    NotInTransaction,
    /// `BrokenTransactionManager`
    BrokenTransactionManager,
    /// `QueryBuilderError`
    QueryBuilder,
    /// `DatabaseErrorKind::UnableToSendCommand`
    UnableToSendCommand,
    /// `DatabaseErrorKind::SerializationFailure`
    SerializationFailure,
    /// `DatabaseErrorKind::ReadOnlyTransaction`
    ReadOnlyTransaction,
    /// `DatabaseErrorKind::RestrictViolation`
    RestrictViolation,
    /// `DatabaseErrorKind::ExclusionViolation`
    ExclusionViolation,
    /// `DatabaseErrorKind::ClosedConnection`
    ClosedConnection,
}
