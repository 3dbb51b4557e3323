use crate::wire::{Answer, BeginMode, Effects, Refusal, Settings, Work};

/// Runs forwarded work on the primary's database. One thread owns it, so nothing here needs to be shared.
///
/// The crate's feature `diesel` supplies the one for SQLite through Diesel
/// ([`SqliteExecutor`](crate::sqlite::SqliteExecutor)); tests use small fakes.
///
/// All methods block. On an error nothing of the failed work remains applied, except the statements of a
/// [`Work::Script`] that came before the failing one.
pub trait Executor: Send + 'static {
    /// Runs work outside a transaction and commits it.
    ///
    /// # Errors
    /// [`Refusal::Database`], [`Refusal::Denied`] or [`Refusal::TooLarge`].
    fn write(&mut self, settings: &Settings, work: &Work) -> Result<Done, Refusal>;

    /// Opens a transaction and takes the write lock.
    ///
    /// # Errors
    /// [`Refusal::Database`], for example when another connection holds the lock for too long.
    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), Refusal>;

    /// Runs work inside the open transaction. After an error the transaction is still open unless
    /// [`in_transaction`](Self::in_transaction) says otherwise.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn step(&mut self, work: &Work) -> Result<Done, Refusal>;

    /// Whether a transaction is open. Asked after a failed step: some errors make SQLite roll back by itself.
    fn in_transaction(&mut self) -> bool;

    /// Commits the open transaction.
    ///
    /// # Errors
    /// [`Refusal::Database`], for example for a deferred foreign key. The transaction is then still open.
    fn commit(&mut self) -> Result<Done, Refusal>;

    /// Rolls back whatever is open. Afterwards the executor is as new.
    fn rollback(&mut self);
}

/// Work that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// What it produced.
    pub answer: Answer,
    /// What SQLite's session functions say now.
    pub effects: Effects,
    /// Whether there must be a commit to show for it: `false` for work that provably changed nothing, such as an
    /// UPDATE that matched no row, for which LiteFS makes no transaction.
    pub wrote: Wrote,
}

/// Whether work left something to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Rows were changed: the position must advance.
    Rows,
    /// Nothing was changed: the position stays.
    Nothing,
    /// Cannot be told from outside, as for `CREATE TABLE IF NOT EXISTS`.
    Perhaps,
}
