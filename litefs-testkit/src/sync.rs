//! Locks that ignore poisoning, and a signal to wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks `mutex`. A thread that panicked while it held the lock has already failed the test; poison
/// errors in other threads would hide its message.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts changes and wakes the threads that wait for a condition.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// Reports a change.
    pub(crate) fn bump(&self) {
        *locked(&self.count) += 1;
        self.changed.notify_all();
    }

    /// Blocks until `condition` holds or `deadline` has passed; returns which. `condition` is
    /// evaluated after every [`Signal::bump`].
    pub(crate) fn wait_until(
        &self,
        deadline: Instant,
        mut condition: impl FnMut() -> bool,
    ) -> bool {
        loop {
            let seen = *locked(&self.count);
            if condition() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait_beyond(seen, left);
        }
    }

    /// Blocks until `condition` holds.
    pub(crate) fn wait(&self, mut condition: impl FnMut() -> bool) {
        // A node lives for minutes: an hour stands for "no limit".
        while !self.wait_until(Instant::now() + Duration::from_secs(3600), &mut condition) {}
    }

    fn wait_beyond(&self, seen: u64, limit: Duration) {
        let count = locked(&self.count);
        if *count == seen {
            let _ = self.changed.wait_timeout(count, limit).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
