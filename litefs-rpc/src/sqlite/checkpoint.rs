//! Runs checkpoints on another thread, so that no commit waits for them.
//!
//! By default the connection whose commit makes the WAL longer than 1,000 pages copies them into
//! the database, syncs both files and answers only then: one write in a thousand or so waits some
//! milliseconds, and so do all that are queued behind it. A checkpoint in PASSIVE mode does not
//! need the write lock, so another thread can run it beside further commits
//! (<https://www.sqlite.org/wal.html#ckpt>). What it cannot do is begin the WAL anew while writes
//! go on without a pause; for that the commits' own checkpoints remain, at a length that is rarely
//! reached, and find little left to copy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::native::Open;

/// The pages after which a commit beside a [`Checkpointer`] runs a checkpoint by itself: within
/// what one table of the WAL's index holds (4,062 frames).
const PAGES: i64 = 4_000;
/// How many pages may have been written before the WAL is checkpointed.
const DUE: u64 = 1_000;
/// What a commit writes, in pages and at a guess, besides its rows: the table's, an index's, the
/// outcome's.
const PER_COMMIT: u64 = 4;
/// Rows of a page, at a guess.
const ROWS: u64 = 16;

/// Runs checkpoints on a thread of its own. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Checkpointer {
    /// Pages written since the last one, at a guess.
    written: AtomicU64,
    wake: SyncSender<()>,
}

impl Checkpointer {
    /// Starts the thread. `open` is called on it when the first checkpoint is due, and again after
    /// one has failed.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(open: Open) -> std::io::Result<Self> {
        // One is under way and one is due: more would find nothing to do.
        let (wake, woken) = sync_channel(1);
        std::thread::Builder::new()
            .name("litefs-checkpt".into())
            .spawn(move || run(open, &woken))?;
        Ok(Self { written: AtomicU64::new(0), wake })
    }

    /// After each commit; `rows` is how many rows it has changed. Does not block.
    pub fn committed(&self, rows: u64) {
        let pages = PER_COMMIT + rows / ROWS;
        let before = self.written.fetch_add(pages, Ordering::Relaxed);
        if before + pages >= DUE {
            self.written.store(0, Ordering::Relaxed);
            // Full: the thread will look again anyway.
            let _ = self.wake.try_send(());
        }
    }

    /// Has the commits of a connection leave checkpoints to this, until the WAL is 4,000 pages
    /// long. SQLite's default is 1,000; an application that sets `wal_autocheckpoint` afterwards
    /// has the last word.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn take_over(connection: &mut SqliteConnection) -> QueryResult<()> {
        connection.batch_execute(&format!("PRAGMA wal_autocheckpoint = {PAGES}"))
    }
}

fn run(mut open: Open, woken: &Receiver<()>) {
    let mut connection = None;
    while woken.recv().is_ok() {
        let checkpointed = match connection.take() {
            Some(connection) => Ok(connection),
            None => open().map(|opened| opened.connection).map_err(|error| error.to_string()),
        };
        let checkpointed = checkpointed.and_then(|mut connection| {
            let done = connection.batch_execute("PRAGMA wal_checkpoint(PASSIVE)");
            done.map(|()| connection).map_err(|error| error.to_string())
        });
        match checkpointed {
            Ok(open) => connection = Some(open),
            // The commits' own checkpoints remain.
            Err(error) => tracing::debug!(%error, "the WAL was not checkpointed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Opened;
    use std::path::Path;
    use std::time::{Duration, Instant};

    const PAGE: usize = 4_096;

    fn open(path: &Path) -> Opened {
        let mut opened = Opened::establish(path.to_str().unwrap()).unwrap();
        opened
            .connection
            .batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
            .unwrap();
        Checkpointer::take_over(&mut opened.connection).unwrap();
        opened
    }

    fn pages(path: &Path) -> usize {
        usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap() / PAGE
    }

    #[test]
    fn pages_reach_the_database_without_a_commit_that_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut connection = open(&path).connection;
        connection.batch_execute("CREATE TABLE t (x BLOB)").unwrap();
        let opened = path.clone();
        let checkpointer = Checkpointer::start(Box::new(move || Ok(open(&opened)))).unwrap();
        for _ in 0..DUE / PER_COMMIT {
            assert!(pages(&path) < 10, "no checkpoint was requested");
            connection
                .batch_execute(&format!("INSERT INTO t VALUES (zeroblob({}))", 2 * PAGE))
                .unwrap();
            checkpointer.committed(1);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while pages(&path) < 100 {
            assert!(Instant::now() < deadline, "no checkpoint");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_checkpoint_that_fails_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut connection = open(&path).connection;
        connection
            .batch_execute("CREATE TABLE t (x BLOB); INSERT INTO t VALUES (zeroblob(100000))")
            .unwrap();
        let (opened, mut fails) = (path.clone(), true);
        let checkpointer = Checkpointer::start(Box::new(move || {
            if std::mem::take(&mut fails) {
                return Err(diesel::ConnectionError::BadConnection("not now".into()));
            }
            Ok(open(&opened))
        }));
        let checkpointer = checkpointer.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while pages(&path) < 20 {
            assert!(Instant::now() < deadline, "no checkpoint");
            checkpointer.committed(DUE * ROWS);
            std::thread::yield_now();
        }
    }
}
