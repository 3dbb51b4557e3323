//! Whether the writer is about to commit.
//!
//! SQLite shows a commit to readers a moment before it lets go of its lock, and it is then that LiteFS takes the commit and
//! `-pos` tells of it (or does not: LiteFS may have lost the lease). Whoever has read in that moment waits until it is over
//! before he says at which position that was.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    under_way: bool,
    /// How many have ended.
    count: u64,
}

/// A commit under way, until it is dropped.
pub(super) struct Committing(Arc<Commits>);

impl Commits {
    /// From before SQLite commits until the position is proven. There is one writer, so there is one.
    pub(super) fn begin(self: &Arc<Self>) -> Committing {
        self.state().under_way = true;
        Committing(Arc::clone(self))
    }

    /// Blocks until the commit under way has ended, if there is one, but no longer than `limit`: the writer may be waiting
    /// for a lock, with nothing to show yet.
    pub(super) fn wait(&self, limit: Duration) {
        let state = self.state();
        let seen = state.count;
        let on = |state: &mut State| state.under_way && state.count == seen;
        drop(self.ended.wait_timeout_while(state, limit, on).expect(NO_PANIC));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "no code panics while it holds the state of commits";

impl Drop for Committing {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way = false;
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
        let commits = Arc::new(Commits::default());
        let started = Instant::now();
        commits.wait(LONG);
        let committing = commits.begin();
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
        drop(committing);
        // Others that follow without a pause are nothing to wait for.
        let mut next = commits.begin();
        while !waiter.is_finished() {
            drop(next);
            next = commits.begin();
        }
        waiter.join().unwrap();
        assert!(started.elapsed() < LONG);
    }
}
