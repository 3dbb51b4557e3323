//! The option that says how a plain transaction begins.

use std::str::FromStr;

/// How [`Connection::transaction`](diesel::Connection::transaction) begins on LiteFS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionMode {
    /// On a replica the transaction runs on this node, and its COMMIT sends it to the primary in
    /// one round trip. If what it has seen has changed there, it fails with
    /// [`Failure::SnapshotMoved`](crate::Failure::SnapshotMoved): nothing is applied, and
    /// [`transaction_with_retry`](crate::LiteFsConnection::transaction_with_retry) runs it again. A
    /// statement whose result only the primary knows, such as an automatic id that is returned,
    /// moves the transaction to the primary. The default.
    #[default]
    Optimistic,
    /// As BEGIN IMMEDIATE: the transaction takes the primary's write lock with its first statement,
    /// and every statement of it runs there. It meets no conflicts; it costs a round trip for each
    /// statement, and all other writes wait for it.
    Immediate,
}

impl TransactionMode {
    pub(crate) fn is_optimistic(self) -> bool {
        self == Self::Optimistic
    }
}

/// `optimistic` or `immediate`.
impl FromStr for TransactionMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "optimistic" => Ok(Self::Optimistic),
            "immediate" => Ok(Self::Immediate),
            other => Err(format!("{other:?} is neither optimistic nor immediate")),
        }
    }
}
