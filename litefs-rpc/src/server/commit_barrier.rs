//! Lets readers wait for a commit in progress.
//!
//! SQLite shows a commit to readers shortly before it releases its lock. LiteFS records the commit
//! at that release, and only then `-pos` advances (or does not: LiteFS may have lost the lease). A
//! reader that has read in between waits for the release before it reads the position.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Whether the writer is committing.
#[derive(Debug, Default)]
pub(super) struct CommitBarrier {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_progress: bool,
    /// The number of commits that have ended.
    count: u64,
}

/// A commit in progress; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct CommitInProgress(Arc<CommitBarrier>);

impl CommitBarrier {
    /// Marks the time from before SQLite commits until the position is confirmed. There is one
    /// writer, so one commit at a time.
    pub(super) fn begin(self: &Arc<Self>) -> CommitInProgress {
        self.state().in_progress = true;
        CommitInProgress(Arc::clone(self))
    }

    /// Blocks until the commit in progress has ended, if there is one, but no longer than `limit`:
    /// the writer may be waiting for a lock and have committed nothing yet.
    pub(super) fn wait(&self, limit: Duration) {
        let state = self.state();
        let seen = state.count;
        let same = |state: &mut State| state.in_progress && state.count == seen;
        drop(self.ended.wait_timeout_while(state, limit, same).expect(NO_PANIC));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "no code panics while it holds the state of commits";

impl Drop for CommitInProgress {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_progress = false;
        state.count += 1;
        drop(state);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn waiting_ends_with_the_commit_that_was_under_way_or_at_the_limit() {
        let commits = Arc::new(CommitBarrier::default());
        let started = Instant::now();
        commits.wait(LONG);
        let in_progress = commits.begin();
        commits.wait(Duration::from_millis(5));
        assert!(started.elapsed() >= Duration::from_millis(5));
        let (waits, waited) = mpsc::channel();
        let waiter = std::thread::spawn({
            let commits = Arc::clone(&commits);
            move || {
                commits.wait(LONG);
                waits.send(()).unwrap();
            }
        });
        assert!(waited.recv_timeout(Duration::from_millis(20)).is_err(), "it is still under way");
        drop(in_progress);
        // A commit that follows without a pause is not waited for.
        let mut next = commits.begin();
        while !waiter.is_finished() {
            drop(next);
            next = commits.begin();
        }
        waiter.join().unwrap();
        assert!(started.elapsed() < LONG);
    }
}
