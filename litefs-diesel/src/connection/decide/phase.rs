//! The phase of a connection's transaction.

/// How far the connection's transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum Phase {
    /// No transaction.
    Autocommit,
    /// BEGIN has been accepted, and no statement has run.
    Pending,
    /// The same for a BEGIN that takes the lock: the first statement takes it along to the primary.
    PendingRemote,
    /// Open on the local file of a replica, which can only read.
    LocalReads,
    /// It has run on a replica's snapshot, writes too, and is recorded.
    Speculating,
    /// Open on the local file of a node that could write when the transaction began.
    LocalWrites,
    /// Open on the primary.
    Remote,
    /// Rolled back, and the application has not ended it yet.
    Lost,
}

impl Phase {
    /// Whether the transaction is open on the local file.
    pub(in crate::connection) fn is_local(self) -> bool {
        matches!(self, Phase::LocalReads | Phase::LocalWrites)
    }
}
