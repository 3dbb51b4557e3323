//! What clients remember and what nodes hold in the end: all that the checker gets to see.

use serde::{Deserialize, Serialize};

/// Names a list.
pub(super) type Key = i64;
/// An element of a list. No two appends share one.
pub(super) type Value = i64;
/// Microseconds since the run began.
pub(super) type Moment = u64;

/// What a client asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    /// An INSERT outside of any transaction.
    Append { key: Key, value: Value },
    /// A transaction that reads a list, then appends to it and notes how long the list was. With
    /// `patient` through `transaction_with_retry`.
    ReadThenAppend { key: Key, value: Value, patient: bool },
    /// Several INSERTs in one request, all or none.
    Batch { items: Vec<(Key, Value)> },
    /// A whole list.
    Read { key: Key },
}

impl Op {
    /// What it appends, if it is done.
    pub(super) fn appends(&self) -> Vec<(Key, Value)> {
        match self {
            Self::Append { key, value } | Self::ReadThenAppend { key, value, .. } => {
                vec![(*key, *value)]
            }
            Self::Batch { items } => items.clone(),
            Self::Read { .. } => Vec::new(),
        }
    }

    /// The list that it reads.
    pub(super) fn reads(&self) -> Option<Key> {
        match self {
            Self::Read { key } | Self::ReadThenAppend { key, .. } => Some(*key),
            Self::Append { .. } | Self::Batch { .. } => None,
        }
    }
}

/// What a write was acknowledged with, as the node's process will name it should it report its
/// loss.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// The transaction of LiteFS that was acknowledged; the append is not behind it.
    pub(super) txid: u64,
    pub(super) position: String,
    /// The write's own name, if it was forwarded.
    pub(super) request: Option<String>,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Done. `seen` is the list that was read.
    Done { seen: Vec<Value>, receipt: Option<Receipt> },
    /// Certainly not applied.
    Refused { why: String },
    /// It may or may not be applied, now or later.
    Unknown { why: String },
}

/// One operation of one client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// A client does one thing after the other.
    pub(super) client: usize,
    /// The node's number.
    pub(super) node: usize,
    /// Counts the processes that this node has been.
    pub(super) incarnation: u64,
    pub(super) invoked: Moment,
    pub(super) completed: Moment,
    pub(super) op: Op,
    pub(super) outcome: Outcome,
}

/// A process: a node's number, and which of the processes that this node has been.
pub(super) type Process = (usize, u64);

impl Record {
    /// The process that was asked.
    pub(super) fn process(&self) -> Process {
        (self.node, self.incarnation)
    }

    /// What the append was acknowledged with.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        match &self.outcome {
            Outcome::Done { receipt, .. } => receipt.as_ref(),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done { .. })
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused { .. })
    }

    /// The list that it read and what was in it.
    pub(super) fn read(&self) -> Option<(Key, &[Value])> {
        match (&self.op.reads(), &self.outcome) {
            (Some(key), Outcome::Done { seen, .. }) => Some((*key, seen)),
            _ => None,
        }
    }
}

/// One element as a node stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) value: Value,
    /// How long the list was for the transaction that appended this, if one did that had read it.
    pub(super) seen: Option<i64>,
}

/// A time in which one primary followed another and may have taken writes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Takeover {
    pub(super) began: Moment,
    pub(super) ended: Moment,
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// In no particular order.
    pub(super) records: Vec<Record>,
    pub(super) takeovers: Vec<Takeover>,
    /// What each node has in the end, in the order of appending.
    pub(super) finals: Vec<(String, Vec<Row>)>,
}
