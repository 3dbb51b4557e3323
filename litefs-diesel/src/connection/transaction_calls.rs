//! The transactions of `SqliteConnection`, and one that tries again.

use diesel::connection::{AnsiTransactionManager, Connection, TransactionManager};
use diesel::result::Error;
use litefs_rpc::diagnosis::Symptom;

use super::LiteFsConnection;
use super::destination::Phase;
use crate::Failure;

/// How often [`LiteFsConnection::transaction_with_retry`] hopes to be alone.
const OPTIMISTIC_TRIES: usize = 2;

/// SQLITE_BUSY and SQLITE_BUSY_SNAPSHOT, <https://www.sqlite.org/rescode.html#busy_snapshot>;
/// Diesel keeps the message only.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if Symptom::of(information.message()) == Symptom::Locked)
}

impl LiteFsConnection {
    /// Runs a transaction with `BEGIN IMMEDIATE`. On a replica the lock is taken on the primary at
    /// once, so everything in it, reads too, runs there.
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

    /// Runs a transaction, again and again while it fails only because somebody else wrote between
    /// its reads and its first write ([`Failure::SnapshotMoved`]; on plain SQLite: "database is
    /// locked"), or because the primary changed under it ([`Failure::TransactionLost`]): nothing is
    /// applied then. `work` runs once per try, so it must not keep what an earlier try did outside
    /// of the database. Up to `tries` times.
    ///
    /// The first two tries read on this node, as [`Connection::transaction`] does. If both lose the
    /// race, the others take the lock first, as
    /// [`immediate_transaction`](Self::immediate_transaction) does, and cannot lose it: however
    /// busy the database is, everybody gets their turn. Within a transaction it is the outer one
    /// that has to be run again, so `work` runs once.
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
        let depth =
            AnsiTransactionManager::transaction_manager_status_mut(self).transaction_depth();
        let nested = !matches!(depth, Ok(None));
        let tries = if nested { 1 } else { tries.max(1) };
        let mut done = 0;
        loop {
            self.lost_race = false;
            let result = if done < OPTIMISTIC_TRIES {
                self.transaction(&mut work)
            } else {
                self.immediate_transaction(&mut work)
            };
            done += 1;
            if result.is_ok() || !self.lost_race || done == tries {
                return result;
            }
        }
    }

    /// A transaction on this node's own file has read, and then finds that somebody else has
    /// written, or is writing: SQLite says so with its code for a lock, and only running the
    /// transaction again helps.
    pub(super) fn raced<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        // Whatever was lost before, the transaction has gone on since.
        self.lost_race = result.as_ref().is_err_and(is_locked);
        match result {
            Err(error) if self.lost_race && self.phase() == Phase::LocalWrites => {
                let message = format!(
                    "somebody else is writing, or has written since this transaction read: {error}"
                );
                Err(Failure::SnapshotMoved.error(message))
            }
            result => result,
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
        if let Err(error) = AnsiTransactionManager::begin_transaction_sql(self, begin) {
            self.lost_race = is_locked(&error);
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
