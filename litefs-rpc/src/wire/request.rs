//! Requests: commands, transactions and reports.

use std::fmt;
use std::sync::Arc;

use litefs_core::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Call, ProtocolVersion, RecordedTransaction, Repeated, Statement};

/// Identifies one forwarded write: a UUIDv7 (RFC 9562), so ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Creates an id.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl RequestId {
    /// An id that sorts before every id made at `time` (since 1970) or later.
    #[must_use]
    pub fn earliest_at(time: std::time::Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid())
    }

    /// The 16 bytes of the UUID.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// Parses the text that [`Display`](fmt::Display) writes, as in errors and logs.
impl std::str::FromStr for RequestId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one open transaction on the primary. Only the connection that opened it may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// What the primary has to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// One statement. The answer is the number of changed rows.
    Execute(Statement),
    /// One statement. The answer is its rows.
    Query(Statement),
    /// One INSERT of many rows of parameters. Its text has one row (`.. VALUES (?, ?)`) that is
    /// repeated for each row. The answer is the number of changed rows.
    Insert(Arc<Repeated>),
    /// Several statements without parameters, run one after the other as `sqlite3_exec` does.
    Script(String),
    /// Several statements with parameters, applied all or none. The answer is the number of changed
    /// rows of each, or the rows of all, which then have the same columns.
    Batch {
        /// The statements, in order. Shared, so that a retry does not copy them.
        statements: Arc<[Repeated]>,
        /// Whether the answer is the rows.
        rows: bool,
    },
    /// A transaction that ran on a replica, to be run again and compared. Outside a transaction the
    /// answer is [`Output::Done`](super::Output::Done). As the first command of a transaction it
    /// leaves that open, and the answer is that of its `next` command. Since protocol version 2.
    Transaction(Arc<RecordedTransaction>),
    /// A call of a procedure that the primary has registered. The answer is its encoded result
    /// ([`Output::Value`](super::Output::Value)). Since protocol version 2.
    Call(Arc<Call>),
}

impl Command {
    /// The bytes that this command adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Command::Execute(statement) | Command::Query(statement) => statement.size(),
            Command::Insert(rows) => rows.size(),
            Command::Script(sql) => 8 + sql.len(),
            Command::Batch { statements, .. } => statements
                .iter()
                .fold(0, |size: usize, repeated| size.saturating_add(repeated.size())),
            Command::Transaction(record) => record.size(),
            Command::Call(call) => call.size(),
        }
    }

    /// The oldest version of the protocol that has this command.
    #[must_use]
    pub fn since(&self) -> ProtocolVersion {
        match self {
            Command::Transaction(_) | Command::Call(_) => ProtocolVersion::V2,
            _ => ProtocolVersion::V1,
        }
    }

    /// The SQL texts, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let recorded = match self {
            Command::Transaction(record) => Some(&**record),
            _ => None,
        };
        let within = recorded.into_iter().flat_map(RecordedTransaction::commands);
        // A recorded transaction has none within it.
        self.own_texts().chain(within.flat_map(Self::own_texts))
    }

    fn own_texts(&self) -> impl Iterator<Item = &str> {
        let (one, several) = match self {
            Command::Execute(statement) | Command::Query(statement) => {
                (Some(statement.sql.as_str()), &[][..])
            }
            Command::Insert(rows) => (Some(rows.sql.as_str()), &[][..]),
            Command::Script(sql) => (Some(sql.as_str()), &[][..]),
            Command::Batch { statements, .. } => (None, &statements[..]),
            Command::Transaction(_) | Command::Call(_) => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().map(|repeated| repeated.sql.as_str()))
    }
}

/// The connection's PRAGMAs that change what a write means; they govern its forwarded writes too.
///
/// See <https://www.sqlite.org/pragma.html>. The default is SQLite's own: all off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `PRAGMA foreign_keys`
    pub foreign_keys: bool,
    /// `PRAGMA defer_foreign_keys`; SQLite clears it at each COMMIT, so it matters within a
    /// transaction only.
    pub defer_foreign_keys: bool,
    /// `PRAGMA recursive_triggers`
    pub recursive_triggers: bool,
    /// `PRAGMA ignore_check_constraints`
    pub ignore_check_constraints: bool,
    /// `PRAGMA legacy_alter_table`
    pub legacy_alter_table: bool,
}

/// How often a write may be applied when its answer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Delivery {
    /// The primary stores the outcome in the write's own transaction. A retry on the same or the
    /// next primary finds it, and the write is applied once.
    #[default]
    ExactlyOnce,
    /// No outcome is stored and there is no retry. After a lost answer the outcome is unknown.
    AtMostOnce,
}

/// `exactly-once` or `at-most-once`.
impl std::str::FromStr for Delivery {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "exactly-once" => Ok(Self::ExactlyOnce),
            "at-most-once" => Ok(Self::AtMostOnce),
            other => Err(format!("{other:?} is neither exactly-once nor at-most-once")),
        }
    }
}

/// A forwarded autocommit write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Identifies this write in logs and retries.
    pub id: RequestId,
    /// Whether its outcome is stored.
    pub delivery: Delivery,
    /// Whether it was sent before, so that its outcome may be stored already.
    pub again: bool,
    /// The session state it runs under.
    pub settings: Settings,
    /// What to run.
    pub work: Command,
}

/// How a transaction's lock is taken, <https://www.sqlite.org/lang_transaction.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BeginMode {
    /// `BEGIN IMMEDIATE`
    Immediate,
    /// `BEGIN EXCLUSIVE`
    Exclusive,
}

/// Opens a transaction on the primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Identifies the transaction's outcome in logs and retries.
    pub id: RequestId,
    /// Whether the outcome of its COMMIT is stored.
    pub delivery: Delivery,
    /// The session state it runs under.
    pub settings: Settings,
    /// How the lock is taken.
    pub mode: BeginMode,
    /// The position that the transaction's local reads saw. If the primary has another position
    /// once the lock is held, the transaction is refused: its reads and writes would see different
    /// snapshots.
    pub expected: Option<Position>,
    /// Savepoints that were opened before the transaction moved here, outermost first.
    pub savepoints: Vec<String>,
    /// The first statement, sent together with BEGIN to save a round trip.
    pub first: Option<Command>,
}

/// A replica's report to the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Its LiteFS host name, or another unique name.
    pub node: String,
    /// The address of its own server, `host:port`; `None` if it has none.
    pub address: Option<String>,
    /// The position of its database.
    pub position: Option<Position>,
}
