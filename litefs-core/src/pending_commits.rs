//! [`PendingCommits`]: commits on this node's own file that SQLite has begun and that are not
//! confirmed yet.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts commits from the moment SQLite begins them, with its write lock held, until they are
/// confirmed. A handoff takes the write lock and then waits here: a commit that came before it is
/// confirmed under the role in which it was made.
#[derive(Debug, Default)]
pub struct PendingCommits {
    count: Mutex<usize>,
    none_left: Condvar,
}

impl PendingCommits {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SQLite begins a commit. Each call is followed by one of [`end`](Self::end).
    pub fn begin(&self) {
        *self.count() += 1;
    }

    /// The commit is confirmed, or has failed.
    pub fn end(&self) {
        let mut count = self.count();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.none_left.notify_all();
        }
    }

    /// Blocks until no commit is pending, at most for `limit`. Returns whether none is.
    pub fn wait(&self, limit: Duration) -> bool {
        let pending = |count: &mut usize| *count > 0;
        let waited = self.none_left.wait_timeout_while(self.count(), limit, pending);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_last_commit_or_with_its_limit() {
        let pending = PendingCommits::default();
        assert!(pending.wait(Duration::ZERO));
        pending.begin();
        pending.begin();
        assert!(!pending.wait(Duration::from_millis(1)));
        pending.end();
        std::thread::scope(|scope| {
            scope.spawn(|| pending.end());
            assert!(pending.wait(Duration::from_secs(10)));
        });
    }
}
