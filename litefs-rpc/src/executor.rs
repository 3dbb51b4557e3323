use std::sync::Arc;

use crate::wire::{
    BeginMode, Command, Outcome, Output, Request, RequestId, ServerError, SessionCounters, Settings,
};

/// Runs forwarded work on the primary's database. One thread owns it, so nothing here needs to be shared.
///
/// The crate's feature `diesel` supplies the one for SQLite through Diesel
/// ([`SqliteExecutor`](crate::sqlite::SqliteExecutor)); tests use small fakes.
///
/// All methods block. On an error nothing of the failed work remains applied; where a part does, as of a script that fails
/// in the middle, the answer is [`Output::Failed`].
pub trait Executor: Send + 'static {
    /// Runs a request's work outside a transaction and commits it. With
    /// [`Delivery::ExactlyOnce`](crate::wire::Delivery::ExactlyOnce) its outcome is kept in the same transaction, and a
    /// request whose outcome is there already is answered with that.
    ///
    /// # Errors
    /// [`ServerError::Database`], [`ServerError::Denied`], [`ServerError::TooLarge`]; for one that was sent before also
    /// [`ServerError::Fenced`] or [`ServerError::Interrupted`].
    fn write(&mut self, request: &Request) -> Result<Done, ServerError>;

    /// Whether a request may share a transaction with others, with the same result for each as if it ran alone. Default:
    /// none may.
    fn may_share(&mut self, _: &Request) -> bool {
        false
    }

    /// Opens a transaction for requests that may share one, all with these settings. `false`: the database does not allow
    /// it, nothing is open. Default: it never does.
    ///
    /// # Errors
    /// As [`begin`](Self::begin). Unchanged is open then.
    fn open_group(&mut self, _: &Settings) -> Result<bool, ServerError> {
        Ok(false)
    }

    /// Runs a request in the open group. The default is for executors that open none.
    ///
    /// # Errors
    /// [`GroupAborted`]: the group cannot go on. Whoever calls this rolls it back and runs its requests one by one.
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

    /// This node is the primary in another term than when it was called last: others may have written
    /// meanwhile. Called before the first work of each term. Default: nothing.
    fn term_started(&mut self) {}

    /// What became of the write `id`. One that is not applied is given up in the same breath: should it arrive after
    /// this, it is refused.
    ///
    /// # Errors
    /// [`ServerError::Database`].
    fn settle(&mut self, id: RequestId) -> Result<(Outcome, CommitExpectation), ServerError>;

    /// Opens a transaction and takes the write lock.
    ///
    /// # Errors
    /// [`ServerError::Database`], for example when another connection holds the lock for too long.
    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), ServerError>;

    /// Runs work inside the open transaction. After an error the transaction is still open unless
    /// [`in_transaction`](Self::in_transaction) says otherwise.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn step(&mut self, work: &Command) -> Result<Done, ServerError>;

    /// Whether a transaction is open. Asked after a failed step: some errors make SQLite roll back by itself.
    fn in_transaction(&mut self) -> bool;

    /// Commits the open transaction; with `keep` its outcome is kept under that id.
    ///
    /// # Errors
    /// [`ServerError::Database`], for example for a deferred foreign key. The transaction is then still open.
    /// [`ServerError::Fenced`] where somebody has asked for the outcome before.
    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, ServerError>;

    /// Rolls back whatever is open. Afterwards the executor is as new.
    fn rollback(&mut self);

    /// Where reads run that need not wait for writes. Asked once, at the start. Default: there is no such place, and reads
    /// take their turn among the writes.
    fn readers(&self) -> Option<Arc<dyn Readers>> {
        None
    }
}

/// Opens connections for forwarded reads, beside the one that writes.
pub trait Readers: Send + Sync + 'static {
    /// Whether work only reads what is committed, as far as its text tells, and asks for nothing that belongs to the writer's
    /// connection. Called for each request before it is queued, so it should be quick.
    fn only_reads(&self, work: &Command) -> bool;

    /// Opens a connection. Blocks.
    ///
    /// # Errors
    /// [`ServerError::Database`].
    fn open(&self) -> Result<Box<dyn Reader>, ServerError>;
}

/// A connection that reads what is committed. One thread at a time has it.
pub trait Reader: Send {
    /// Runs work that [only reads](Readers::only_reads). `None`: it failed and may have tried to write, so it is to be
    /// run where writes run; nothing of it is applied. Blocks.
    ///
    /// # Errors
    /// [`ServerError::Database`], [`ServerError::Denied`], [`ServerError::TooLarge`].
    fn run(&mut self, work: &Command) -> Result<Option<Output>, ServerError>;
}

/// Command that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// What it produced.
    pub answer: Output,
    /// What SQLite's session functions say now.
    pub effects: SessionCounters,
    /// Whether SQLite has committed pages for it, so that LiteFS must show a transaction. Within an open transaction:
    /// whether it may have changed anything.
    pub wrote: CommitExpectation,
}

impl Done {
    /// Whether it failed and left a part behind.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self.answer, Output::Failed(_))
    }
}

/// Whether work has written pages of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitExpectation {
    /// It has: the position must advance.
    Advances,
    /// It has not: the position stays. So it is with an UPDATE that matches no row, or that sets rows to what they
    /// were.
    Unchanged,
}

/// Requests cannot share a transaction after all: one of them has ended it (`OR ROLLBACK`), or it could not be committed.
/// They have to run one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupAborted;
