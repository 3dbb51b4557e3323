use std::fmt;

use litefs_core::Position;
use serde::{Deserialize, Serialize};

use super::Value;
use crate::diagnosis::Symptom;

/// The primary's answer to work that it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What the work produced.
    pub answer: Output,
    /// The primary's position after the commit: a read that must see this write waits for it. `None` inside a
    /// transaction, where nothing is committed yet.
    pub position: Option<Position>,
    /// What `last_insert_rowid()` and `changes()` say after the work.
    pub effects: SessionCounters,
}

/// What work produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// The number of changed rows.
    Count(u64),
    /// The number of changed rows of each statement of a batch, in order.
    Counts(Vec<u64>),
    /// The rows of a query.
    Rows(RowSet),
    /// A script ran to its end.
    Done,
    /// It failed, but a part of it is applied: the statements of a script before the one that failed, or the rows before
    /// the one that did not fit (`OR FAIL`).
    Failed(DatabaseError),
    /// It was applied before, and its rows were too many to keep.
    NotKept,
}

/// What became of a write, as the primary's database itself says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is applied, once; this was its answer.
    Applied(Output, SessionCounters),
    /// It is not applied and never will be: should it still arrive, it is refused.
    NotApplied,
    /// A script that cannot run as one transaction was interrupted: some of its statements may be applied.
    Interrupted,
}

/// An outcome and the position at which it is settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
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

    /// The bytes that the values add to a message, near enough for limits.
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

/// What the primary tells a replica that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryReport {
    /// Where the primary is.
    pub position: Position,
    /// Somebody waits for the replica's answer: come back at once.
    pub awaited: bool,
    /// Where the primary was when it became the primary, near enough: what it has from then on is its own.
    pub term_start: Position,
    /// The replica's position is one that this primary has been at: its file is in this primary's history.
    pub shared: bool,
}

/// What SQLite's session functions say after a write, <https://www.sqlite.org/lang_corefunc.html>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounters {
    /// `last_insert_rowid()`
    pub last_insert_rowid: i64,
    /// `changes()`
    pub changes: i64,
    /// Growth of `total_changes()`: zero says that no row was written, by a trigger either.
    pub total_changes: i64,
    /// Whether `last_insert_rowid` is this work's, where the work inserts at all: an upsert may have updated instead, or
    /// ignored the row.
    pub inserted: bool,
}

/// Where the primary is, as far as the refusing node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryHint {
    /// The primary's LiteFS host name.
    pub node: String,
    /// Where its RPC server listens, `host:port`.
    pub address: String,
}

/// Why the server did not do what it was asked. Each variant says what became of the work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum ServerError {
    /// This node is not the primary. The work was not applied.
    #[error("this node is not the primary{}", .hint.as_ref().map(|h| format!("; it is {} at {}", h.node, h.address)).unwrap_or_default())]
    NotPrimary {
        /// The primary, where known.
        hint: Option<PrimaryHint>,
    },
    /// SQLite refused the statement. It was not applied; of a script, the statements before it were.
    #[error("{0}")]
    Database(DatabaseError),
    /// The commit was made, but LiteFS did not confirm it. The work may or may not be applied.
    #[error("the commit was not confirmed by LiteFS: {reason}")]
    Unconfirmed {
        /// What was missing.
        reason: String,
    },
    /// Too much is queued. The work was not applied and may be sent again.
    #[error("the primary's queue is full ({limit} waiting)")]
    Overloaded {
        /// The queue's limit.
        limit: usize,
    },
    /// The deadline passed before the work began. It was not applied.
    #[error("the deadline passed before the work began")]
    TooLate,
    /// The server is shutting down. The work was not applied and may be sent again.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The statement is not allowed through the RPC port. It was not applied.
    #[error("refused: {what}")]
    Denied {
        /// What is refused and why.
        what: String,
    },
    /// A limit was exceeded. The work was not applied.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// Its size.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction's local reads saw another position than the primary's. Nothing was applied; run it again.
    #[error("the database moved on (to {actual}) since this transaction read it (at {expected})")]
    SnapshotMoved {
        /// What the transaction read.
        expected: Position,
        /// Where the primary is.
        actual: Position,
    },
    /// The write was declared not applied by somebody who asked for its outcome, before it arrived. It was not applied.
    #[error("the write was given up before it arrived, and is not applied")]
    Fenced,
    /// A script was interrupted when it was sent the first time: some of its statements may be applied.
    #[error("the script was interrupted when it ran the first time; some of its statements may be applied")]
    Interrupted,
    /// The primary was not handed over; it is where it was.
    #[error("the primary was not handed over: {reason}")]
    HandoffFailed {
        /// Why.
        reason: String,
    },
    /// The commit is made, but not as many replicas have it as were asked for. It is applied here.
    #[error("{reached} of {wanted} replicas have the commit")]
    NotReplicated {
        /// How many have it.
        reached: usize,
        /// How many should.
        wanted: usize,
    },
    /// The session does not exist (any more): it was rolled back.
    #[error("the transaction was rolled back: {reason}")]
    SessionLost {
        /// Why.
        reason: String,
    },
    /// The node's disk is full. The work was not applied, and succeeds once there is room.
    #[error("{reason}: the disk of node {node} has no room for it")]
    DiskFull {
        /// The node's LiteFS host name.
        node: String,
        /// SQLite's message.
        reason: String,
    },
    /// The node cannot use its database, although it is the primary and its mount is served. The work was not applied.
    #[error(
        "{reason}: node {node}, which is the primary, cannot use its file; its disk may be full or broken"
    )]
    Io {
        /// The node's LiteFS host name.
        node: String,
        /// SQLite's message.
        reason: String,
    },
}

impl ServerError {
    pub(crate) fn unconfirmed(reason: impl fmt::Display) -> Self {
        Self::Unconfirmed { reason: reason.to_string() }
    }

    pub(crate) fn handoff_failed(reason: impl fmt::Display) -> Self {
        Self::HandoffFailed { reason: reason.to_string() }
    }

    /// Classifies the message, if this is an error of SQLite.
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        match self {
            Self::Database(error) => Symptom::of(&error.message),
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

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The kinds of database errors that Diesel's SQLite connection tells apart, and the two that are not SQLite's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}
