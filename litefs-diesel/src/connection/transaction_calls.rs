//! The transactions of `SqliteConnection`, and one that tries again.

use diesel::connection::{AnsiTransactionManager, Connection, TransactionManager};
use diesel::result::Error;

use super::LiteFsConnection;
use crate::Failure;

impl LiteFsConnection {
    /// Runs a transaction with `BEGIN IMMEDIATE`. On a replica the lock is taken on the primary at once, so everything
    /// in it, reads too, runs there.
    ///
    /// # Errors
    /// [`Error::AlreadyInTransaction`] inside a transaction; else those of `work` and of BEGIN and COMMIT.
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

    /// Runs a transaction, again and again while it fails only because somebody else wrote between its reads and its
    /// first write ([`Failure::SnapshotMoved`]). `work` runs once per try, so it must not keep what an earlier try did
    /// outside of the database. Up to `tries` times; each try is a whole transaction, so there is no pause in between.
    ///
    /// # Errors
    /// Those of [`Connection::transaction`]; after the last try the failure itself.
    pub fn transaction_with_retry<T>(
        &mut self,
        tries: usize,
        mut work: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut left = tries.max(1);
        loop {
            left -= 1;
            match self.transaction(&mut work) {
                Err(error) if left > 0 && Failure::of(&error) == Some(Failure::SnapshotMoved) => {}
                result => return result,
            }
        }
    }

    fn transaction_begun_by<T, E>(
        &mut self,
        begin: &str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        AnsiTransactionManager::begin_transaction_sql(self, begin)?;
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
