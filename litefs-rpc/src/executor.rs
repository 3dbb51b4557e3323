//! The interface between the server and the database: an [`Executor`] writes, [`Readers`] read.

use std::sync::Arc;

pub use litefs_core::CommitExpectation;

use crate::wire::{
    BeginMode, Command, Outcome, Output, Request, RequestId, ServerError, SessionCounters, Settings,
};

/// Runs forwarded commands on the primary's database. One thread at a time uses it.
///
/// The feature `diesel` brings the implementation for SQLite
/// ([`SqliteExecutor`](crate::sqlite::SqliteExecutor)); tests implement small fakes.
///
/// All methods block. After an error nothing of the failed command remains applied. If a part does,
/// as of a script that fails in the middle, the result is [`Output::Failed`].
pub trait Executor: Send + 'static {
    /// Runs a request's command outside a transaction and commits it. With
    /// [`Delivery::ExactlyOnce`](crate::wire::Delivery::ExactlyOnce) the outcome is stored in the
    /// same transaction, and a request whose outcome is stored already returns that.
    ///
    /// # Errors
    /// [`ServerError::Database`], [`ServerError::Denied`], [`ServerError::TooLarge`]. For a request
    /// that was sent before also [`ServerError::Fenced`] or [`ServerError::Interrupted`].
    fn write(&mut self, request: &Request) -> Result<Done, ServerError>;

    /// Whether a request may share a transaction with others, with the same result for each as if
    /// it ran alone. Default: none may.
    fn may_share(&mut self, _: &Request) -> bool {
        false
    }

    /// Opens a transaction for requests that may share one, all with these settings. Returns
    /// `false`, with no transaction open, if the database does not allow it. Default: `false`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin). Then no transaction is open.
    fn open_group(&mut self, _: &Settings) -> Result<bool, ServerError> {
        Ok(false)
    }

    /// Runs a request in the open group. The default is for executors that open none.
    ///
    /// # Errors
    /// [`GroupAborted`]: the caller rolls the group back and runs its requests one by one.
    fn join(&mut self, _: &Request) -> Result<Result<Done, ServerError>, GroupAborted> {
        Err(GroupAborted)
    }

    /// Commits the open group.
    ///
    /// # Errors
    /// [`GroupAborted`], as for [`join`](Self::join).
    fn close_group(&mut self) -> Result<CommitExpectation, GroupAborted> {
        Err(GroupAborted)
    }

    /// Called before the first command of each term in which this node is the primary: another node
    /// may have written since the last one. Default: does nothing.
    fn term_started(&mut self) {}

    /// Returns what became of the write `id`. If it is not applied, its id is fenced: a late retry
    /// is rejected.
    ///
    /// # Errors
    /// [`ServerError::Database`].
    fn resolve_outcome(
        &mut self,
        id: RequestId,
    ) -> Result<(Outcome, CommitExpectation), ServerError>;

    /// Opens a transaction and takes the write lock.
    ///
    /// # Errors
    /// [`ServerError::Database`], for example if another connection holds the lock for too long.
    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), ServerError>;

    /// Runs a command inside the open transaction. After an error the transaction is still open
    /// unless [`in_transaction`](Self::in_transaction) returns `false`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn step(&mut self, work: &Command) -> Result<Done, ServerError>;

    /// Whether a transaction is open. Called after a failed step: after some errors SQLite rolls
    /// back by itself.
    fn in_transaction(&mut self) -> bool;

    /// Commits the open transaction; with `keep` its outcome is stored under that id.
    ///
    /// # Errors
    /// [`ServerError::Database`], for example for a deferred foreign key: the transaction is still
    /// open. [`ServerError::Fenced`] if a client has asked for the outcome before.
    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError>;

    /// Rolls back the open transaction, if any.
    fn rollback(&mut self);

    /// The source of connections for reads that need not wait for writes. Called once, when the
    /// server starts. Default: there is none, and reads are queued with the writes.
    fn readers(&self) -> Option<Arc<dyn Readers>> {
        None
    }
}

/// Opens connections for forwarded reads, beside the one that writes.
pub trait Readers: Send + Sync + 'static {
    /// Whether the command only reads committed data, according to its text, and depends on no
    /// state of the writer's connection. Called for each request before it is queued, so it must be
    /// fast.
    fn only_reads(&self, work: &Command) -> bool;

    /// Opens a connection. Blocks.
    ///
    /// # Errors
    /// [`ServerError::Database`].
    fn open(&self) -> Result<Box<dyn Reader>, ServerError>;
}

/// A connection that reads committed data. One thread at a time uses it.
pub trait Reader: Send {
    /// Runs a command that [only reads](Readers::only_reads). Returns `None` if it failed because
    /// it may have tried to write: nothing is applied, and the caller runs it on the writer.
    /// Blocks.
    ///
    /// # Errors
    /// [`ServerError::Database`], [`ServerError::Denied`], [`ServerError::TooLarge`].
    fn run(&mut self, work: &Command) -> Result<Option<Output>, ServerError>;
}

/// The result of a command that was run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Done {
    /// Its output.
    pub answer: Output,
    /// SQLite's session functions after it.
    pub effects: SessionCounters,
    /// Whether SQLite has committed pages for it, so that LiteFS must record a transaction. Within
    /// an open transaction: whether it may have changed anything.
    pub wrote: CommitExpectation,
}

impl Done {
    /// A result with these parts.
    #[must_use]
    pub const fn new(answer: Output, effects: SessionCounters, wrote: CommitExpectation) -> Self {
        Self { answer, effects, wrote }
    }

    /// Whether the command failed and left a part applied.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self.answer, Output::Failed(_))
    }
}

/// The requests of a group cannot share a transaction: one of them has ended it (`OR ROLLBACK`), or
/// it could not be committed. They have to run one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupAborted;
