//! The errors of controlling a cluster.

use std::io;
use std::time::Duration;

/// Why a cluster or node did not do what the test asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, directory or socket of the node failed.
    #[error("{context}: {source}")]
    Io {
        /// The operation.
        context: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// SQLite refused to register the `litefs-testkit` VFS; the field is its result code.
    #[error("SQLite refused to register the VFS (code {0})")]
    Register(i32),
    /// No member of the cluster has this name.
    #[error("there is no node {0:?}")]
    UnknownNode(String),
    /// A builder option or argument is not valid; the field says which.
    #[error("invalid option: {0}")]
    Invalid(String),
    /// The node is dead (it was killed, or LiteFS would have exited); restart it first.
    #[error("node {0:?} is dead")]
    Dead(String),
    /// The node is already running.
    #[error("node {0:?} is running")]
    Running(String),
    /// A node of another process did not answer or answered with an error.
    #[error("node at {url}: {reason}")]
    Remote {
        /// Base URL of the node's HTTP server.
        url: String,
        /// What it answered, or why it did not answer.
        reason: String,
    },
    /// A condition did not come true in time.
    #[error("timed out after {waited:?} waiting for {what}")]
    Timeout {
        /// The time that has passed.
        waited: Duration,
        /// A description of the condition.
        what: String,
    },
    /// No node is primary.
    #[error("no node is primary")]
    NoPrimary,
    /// A node should go back more transactions than it remembers.
    #[error(
        "database {database:?} cannot go back to transaction {txid:016x}: its history does not \
         reach that far"
    )]
    HistoryTooShort {
        /// The database.
        database: String,
        /// The transaction it should go back to.
        txid: u64,
    },
    /// The node applied a journal mode change away from WAL, after which LiteFS refuses to start
    /// until its data directory is wiped.
    #[error("node {0:?} refuses to start: its database does not match its last transaction file")]
    Corrupt(String),
}

impl Error {
    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}
