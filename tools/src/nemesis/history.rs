//! The operations of clients and the final content of nodes: the input of the checker.

use serde::{Deserialize, Serialize};

/// Identifies a list.
pub(super) type Key = i64;
/// An element of a list. No two appends share one.
pub(super) type Value = i64;
/// Microseconds since the run began.
pub(super) type Moment = u64;

/// An operation of a client on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    /// An INSERT outside of any transaction.
    Append { key: Key, value: Value },
    /// A transaction that reads a list, then appends to it with the length that it read. If
    /// `with_retry`, through `transaction_with_retry`.
    ReadThenAppend { key: Key, value: Value, with_retry: bool },
    /// Several INSERTs in one request, all or none.
    Batch { items: Vec<(Key, Value)> },
    /// Reads a whole list.
    Read { key: Key },
}

impl Op {
    /// The element that it appends.
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

/// How a write was acknowledged, in the form in which the node's process reports its loss.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// The acknowledged LiteFS transaction, which contains the append or follows it.
    pub(super) txid: u64,
    pub(super) position: String,
    /// The id of the write, if it was forwarded.
    pub(super) request: Option<String>,
}

/// The result that a client received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Done. `seen` is the list that was read.
    Done { seen: Vec<Value>, receipt: Option<Receipt> },
    /// Certainly not applied.
    Refused { why: String },
    /// Unknown: applied now, later, or never.
    Unknown { why: String },
}

/// One operation of one client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// A client runs one operation after the other.
    pub(super) client: usize,
    /// The node's number.
    pub(super) node: usize,
    /// The number of the process among the processes of this node.
    pub(super) incarnation: u64,
    pub(super) invoked: Moment,
    pub(super) completed: Moment,
    pub(super) op: Op,
    pub(super) outcome: Outcome,
}

/// A process: a node's number, and the number of the process among that node's processes.
pub(super) type Process = (usize, u64);

impl Record {
    /// The process that received the request.
    pub(super) fn process(&self) -> Process {
        (self.node, self.incarnation)
    }

    /// The acknowledgement of the append.
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

    /// The list that it read, and the content.
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
    /// The length of the list as read by the transaction that appended this; `None` outside of such
    /// a transaction.
    pub(super) seen: Option<i64>,
}

/// A period in which the primary changed and writes may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Takeover {
    pub(super) began: Moment,
    pub(super) ended: Moment,
}

/// The history of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The operations, unordered.
    pub(super) records: Vec<Record>,
    pub(super) takeovers: Vec<Takeover>,
    /// The final content of each node, in the order of appending.
    pub(super) finals: Vec<(String, Vec<Row>)>,
}
