//! Turning SQLite's commits into transactions, at the same points as LiteFS (`db.go`, `CommitWAL`
//! and `CommitJournal`).

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use super::{Database, State};
use crate::image::{Page, Pages, page_size_of};
use crate::locks::Owner;
use crate::sync::locked;
use crate::wal;

/// The result of capturing the frames that SQLite committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capture {
    /// They are a transaction now, or there were none.
    Done,
    /// They could not be captured: the lease is lost or a test asked for it. LiteFS exits here.
    Fatal,
}

impl Database {
    /// Captures new frames of the WAL. Called while the writer still holds the write lock, so that
    /// `-pos` is up to date when SQLite's COMMIT returns.
    pub(crate) fn capture_wal(&self, owner: Owner) -> Capture {
        let delay = self.context.faults.with(|settings| settings.commit_delay);
        let captured = self.capture_frames(|| thread::sleep(delay));
        self.context.leave_write(owner);
        captured.unwrap_or_else(|error| {
            tracing::error!(%error, database = self.name, "cannot capture a commit");
            Capture::Fatal
        })
    }

    fn capture_frames(&self, slow_disk: impl FnOnce()) -> io::Result<Capture> {
        let Some((wal, cursor)) = self.wal_and_cursor() else { return Ok(Capture::Done) };
        let Some(found) = wal::committed(&wal, cursor)? else { return Ok(Capture::Done) };
        if self.context.faults.take_forgotten_commit() {
            return Ok(Capture::Done);
        }
        // Only the write lock is held: readers are not blocked.
        slow_disk();
        let mut state = locked(&self.state);
        if self.context.faults.take_dropped_commit() || !self.context.is_writable() {
            return Ok(Capture::Fatal);
        }
        if found.restarted {
            state.wal_pages.clear();
        }
        state.wal_pages.extend(found.pages.keys());
        state.cursor = found.cursor;
        self.commit(&mut state, found.page_size, found.pages, found.commit)?;
        Ok(Capture::Done)
    }

    fn wal_and_cursor(&self) -> Option<(Arc<std::fs::File>, wal::Cursor)> {
        let state = locked(&self.state);
        state.wal.clone().map(|wal| (wal, state.cursor))
    }

    /// Captures changes of the database file. Called when a rollback journal ends, and at the
    /// latest when the writer unlocks the file; a transaction that was rolled back has left the
    /// file unchanged.
    pub(crate) fn capture_rollback(&self) -> io::Result<Capture> {
        let mut state = locked(&self.state);
        if state.dirty.is_empty() {
            return Ok(Capture::Done);
        }
        let mut header = [0; 100];
        let page_size = match self.file.read_exact_at(&mut header, 0) {
            Ok(()) => page_size_of(&header),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        if page_size == 0 {
            state.dirty.clear();
            return Ok(Capture::Done);
        }
        let commit = (self.file.metadata()?.len() / u64::from(page_size)) as u32;
        let pages = self.changed_pages(&state, page_size, commit)?;
        if pages.is_empty() && commit == state.image.len() {
            state.dirty.clear();
            return Ok(Capture::Done);
        }
        if self.context.faults.take_dropped_commit() || !self.context.is_writable() {
            return Ok(Capture::Fatal);
        }
        state.dirty.clear();
        self.commit(&mut state, page_size, pages, commit)?;
        Ok(Capture::Done)
    }

    fn changed_pages(&self, state: &State, page_size: u32, commit: u32) -> io::Result<Pages> {
        let mut written = Pages::new();
        for &pgno in state.dirty.range(1..=commit) {
            let mut data = vec![0; page_size as usize];
            self.file.read_exact_at(&mut data, u64::from(pgno - 1) * u64::from(page_size))?;
            written.insert(pgno, Page::from(data));
        }
        Ok(state.image.changed(written, commit))
    }
}
