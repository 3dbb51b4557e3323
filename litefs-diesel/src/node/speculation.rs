//! Transactions of this node that write to a replica's snapshot and take that back.
//!
//! SQLite gives the write lock of the local file to one of them at a time, and while one is open
//! LiteFS cannot apply what the primary sends. So they take turns, and each has a limit of time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefs_rpc::sqlite::TransactionEnder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::io_thread::IoThread;

/// How long a transaction waits for its turn. Its snapshot is open meanwhile.
const MAX_WAIT: Duration = Duration::from_millis(20);

/// The turns of one node's transactions.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
}

/// A transaction that has its turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    open: Arc<Mutex<bool>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(1)) }
    }
}

impl Turns {
    /// Waits for a turn, for at most 20 ms. Once it has lasted `limit`, `ender` rolls the
    /// transaction back. `None`: others have theirs for longer. Blocks.
    pub(crate) fn take(
        &self,
        io: &IoThread,
        ender: TransactionEnder,
        limit: Duration,
    ) -> Option<Turn> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let free = Arc::clone(&self.free);
                let wait =
                    async move { tokio::time::timeout(MAX_WAIT, free.acquire_owned()).await };
                io.wait(wait)?.ok()?.ok()?
            }
        };
        let open = Arc::new(Mutex::new(true));
        let ended = Arc::downgrade(&open);
        io.spawn(async move {
            tokio::time::sleep(limit).await;
            // The application's thread has the lock while a statement runs.
            let Some(open) = ended.upgrade() else { return };
            tokio::task::spawn_blocking(move || {
                let mut open = lock(&open);
                if std::mem::take(&mut *open) {
                    ender.roll_back();
                }
            });
        });
        Some(Turn { open, _permit: permit })
    }
}

impl Turn {
    /// Keeps the transaction open while a statement of it runs. `None`: the limit was reached, and
    /// it is rolled back.
    pub(crate) fn statement(&self) -> Option<MutexGuard<'_, bool>> {
        Some(lock(&self.open)).filter(|open| **open)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&self.open) = false;
    }
}

fn lock(open: &Mutex<bool>) -> MutexGuard<'_, bool> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
