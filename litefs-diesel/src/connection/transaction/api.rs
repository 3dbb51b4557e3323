//! The transactions that `SqliteConnection` offers, and one that runs again after a conflict.

use diesel::connection::{AnsiTransactionManager, Connection, TransactionManager};
use diesel::result::Error;

use super::super::LiteFsConnection;
use super::state::is_locked;

/// How many tries of [`LiteFsConnection::transaction_with_retry`] take the lock with the first
/// write only.
const OPTIMISTIC_TRIES: usize = 2;

impl LiteFsConnection {
    /// Runs a transaction with `BEGIN IMMEDIATE`. On a replica the first statement takes BEGIN
    /// along and takes the lock on the primary, so everything in it, reads too, runs there.
    ///
    /// # Errors
    /// [`Error::AlreadyInTransaction`] inside a transaction; else those of `work` and of BEGIN and
    /// COMMIT.
    pub fn immediate_transaction<T, E>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.transaction_begun_by("BEGIN IMMEDIATE", work)
    }

    /// Runs a transaction with `BEGIN EXCLUSIVE`; in WAL mode the same as
    /// [`immediate_transaction`](Self::immediate_transaction).
    ///
    /// # Errors
    /// As [`immediate_transaction`](Self::immediate_transaction).
    pub fn exclusive_transaction<T, E>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.transaction_begun_by("BEGIN EXCLUSIVE", work)
    }

    /// Runs a transaction up to `tries` times, while it fails because another connection has
    /// changed what it has seen ([`Failure::SnapshotMoved`](crate::Failure::SnapshotMoved); on
    /// plain SQLite: "database is locked"), or because the primary has changed during it
    /// ([`Failure::TransactionLost`](crate::Failure::TransactionLost)). Nothing is applied then.
    /// `work` runs once per try, so it must not rely on effects of an earlier try outside of the
    /// database.
    ///
    /// The first two tries run on this node, as [`Connection::transaction`] does, the second on
    /// data that has the change. If both meet a conflict, the others take the lock first, as
    /// [`immediate_transaction`](Self::immediate_transaction) does. No other connection can write
    /// then, so they meet no such conflict. Within a transaction the outer one has to run again, so
    /// `work` runs once.
    ///
    /// # Errors
    /// Those of [`Connection::transaction`]; after the last try the failure itself.
    pub fn transaction_with_retry<T, E>(
        &mut self,
        tries: usize,
        mut work: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let tries = if self.is_in_transaction() { 1 } else { tries.max(1) };
        let mut done = 0;
        loop {
            self.transaction.set_retryable_conflict(false);
            let result = if done < OPTIMISTIC_TRIES {
                self.transaction(&mut work)
            } else {
                self.immediate_transaction(&mut work)
            };
            done += 1;
            if result.is_ok() || !self.transaction.has_retryable_conflict() || done == tries {
                return result;
            }
        }
    }

    /// Begins one of the tries of a transaction that runs again after a conflict.
    #[cfg(feature = "async")]
    pub(crate) fn begin_try(&mut self, done: usize) -> diesel::QueryResult<()> {
        self.transaction.set_retryable_conflict(false);
        if done < OPTIMISTIC_TRIES || self.is_in_transaction() {
            return AnsiTransactionManager::begin_transaction(self);
        }
        AnsiTransactionManager::begin_transaction_sql(self, "BEGIN IMMEDIATE")
            .inspect_err(|error| self.transaction.set_retryable_conflict(is_locked(error)))
    }

    /// Whether the last failure was a conflict, and nothing is open that has to run again first.
    #[cfg(feature = "async")]
    pub(crate) fn may_try_again(&mut self) -> bool {
        self.transaction.has_retryable_conflict() && !self.is_in_transaction()
    }

    fn is_in_transaction(&mut self) -> bool {
        let depth =
            AnsiTransactionManager::transaction_manager_status_mut(self).transaction_depth();
        !matches!(depth, Ok(None))
    }

    fn transaction_begun_by<T, E>(
        &mut self,
        begin: &str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        if let Err(error) = AnsiTransactionManager::begin_transaction_sql(self, begin) {
            self.transaction.set_retryable_conflict(is_locked(&error));
            return Err(error.into());
        }
        match work(self) {
            Ok(value) => {
                AnsiTransactionManager::commit_transaction(self)?;
                Ok(value)
            }
            Err(error) => {
                AnsiTransactionManager::rollback_transaction(self)?;
                Err(error)
            }
        }
    }
}
