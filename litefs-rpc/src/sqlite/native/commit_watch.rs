//! What a connection has committed, as its commit hook sees it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use litefs_core::{CommitExpectation, Position};

/// Reads LiteFS's position of the database. `None`: it cannot be read.
pub type ReadPosition = Box<dyn Fn() -> Option<Position> + Send>;

/// The commits of one connection since the last [`reset`](Self::reset).
#[derive(Debug, Default)]
pub(super) struct CommitWatch(Mutex<Commits>);

#[derive(Default)]
struct Commits {
    read: Option<ReadPosition>,
    last: Option<LastCommit>,
    dropped: bool,
    /// Whether a commit was refused; `None`: none is.
    refused: Option<bool>,
}

/// What was true when a commit began.
#[derive(Debug, Clone, Copy)]
struct LastCommit {
    /// LiteFS's position, read with the write lock held: between this moment and the commit no
    /// other connection can move it.
    before: Option<Position>,
    /// SQLite's count of pages written.
    pages: i32,
}

impl CommitWatch {
    /// Sets how positions are read when a commit begins.
    pub(super) fn read_by(&self, read: ReadPosition) {
        self.commits().read = Some(read);
    }

    /// A commit begins. `pages` is the count of pages that the connection has written so far.
    /// `false`: it must not continue.
    pub(super) fn begin(&self, pages: i32) -> bool {
        self.commits().begin(pages)
    }

    /// Refuses the commits of `work`. Also returns whether there was one.
    pub(super) fn refusing<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.commits().refused = Some(false);
        let done = work();
        let refused = self.commits().refused.take();
        (done, refused == Some(true))
    }

    /// A commit begins, and reading the position has panicked.
    pub(super) fn begin_unread(&self, pages: i32) {
        self.commits().last = Some(LastCommit { before: None, pages });
    }

    /// Forgets the commits so far.
    pub(super) fn reset(&self) {
        let mut commits = self.commits();
        commits.last = None;
        commits.dropped = false;
    }

    /// What the commits must have done to the position. `pages` is the count of pages now: a commit
    /// that has written none has changed nothing.
    pub(super) fn expectation(&self, pages: i32) -> CommitExpectation {
        let commits = self.commits();
        match commits.last {
            None => CommitExpectation::Unchanged,
            Some(_) if commits.dropped => CommitExpectation::Dropped,
            Some(last) if last.pages == pages => CommitExpectation::Unchanged,
            Some(last) => {
                last.before.map_or(CommitExpectation::Advances, CommitExpectation::AdvancesFrom)
            }
        }
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commits {
    fn begin(&mut self, pages: i32) -> bool {
        if let Some(refused) = &mut self.refused {
            *refused = true;
            return false;
        }
        let before = self.read.as_ref().and_then(|read| read());
        let unmoved =
            |last: LastCommit| last.pages != pages && before.is_some() && last.before == before;
        self.dropped |= self.last.is_some_and(unmoved);
        self.last = Some(LastCommit { before, pages });
        true
    }
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commits").field("last", &self.last).finish_non_exhaustive()
    }
}
