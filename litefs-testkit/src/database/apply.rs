//! Writing replicated transactions into the database's files while SQLite has them open (LiteFS's
//! `db.go`, `ApplyLTX`).

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Database, State};
use crate::error::Error;
use crate::image::{Pages, is_wal_page};
use crate::locks::NODE;
use crate::position::Position;
use crate::sync::locked;
use crate::transaction::{History, Transaction};
use crate::wal::Cursor;

/// The longest pause between two attempts to get all locks.
const MAX_PAUSE_MS: u64 = 500;

/// Why a transaction was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The wait for readers was cancelled.
    #[error("called off")]
    Cancelled,
    /// The transaction does not follow the database's position.
    #[error("does not follow on the position {0}")]
    Mismatch(Position),
    /// LiteFS exits here: the resulting database has another checksum than the transaction says.
    #[error("database checksum does not match the transaction's")]
    Fatal,
    /// An I/O error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All locks of a database, held by the node.
struct AllLocks<'a>(&'a Database);

impl Drop for AllLocks<'_> {
    fn drop(&mut self) {
        locked(&self.0.locks).release(NODE);
        self.0.context.signal.bump();
    }
}

impl Database {
    /// Waits until no reader and no writer holds a lock. Retries after about i milliseconds the
    /// i-th time, as LiteFS does; frequent readers can starve it.
    ///
    /// Between two attempts LiteFS holds no lock. `keep` holds those that an attempt has got: a
    /// recovery beside tight writers then ends in bounded time.
    fn lock_all(&self, keep: bool, cancelled: impl Fn() -> bool) -> Option<AllLocks<'_>> {
        // Created first, so that a cancelled attempt releases the locks that it holds.
        let all = AllLocks(self);
        for tries in 0u64.. {
            if cancelled() || self.context.is_dead() {
                return None;
            }
            if self.take_all() {
                return Some(all);
            }
            if !keep {
                locked(&self.locks).release(NODE);
                self.context.signal.bump();
            }
            // LiteFS writes `2 ^ i`, which in Go is exclusive or.
            let pause = Duration::from_millis((2 ^ tries).min(MAX_PAUSE_MS));
            self.context
                .signal
                .wait_until(Instant::now() + pause, || cancelled() || self.context.is_dead());
        }
        None
    }

    fn take_all(&self) -> bool {
        let wal = self.is_wal();
        let mut locks = locked(&self.locks);
        if wal { locks.take_all_wal() } else { locks.take_all_rollback() }
    }

    /// Applies a transaction of the primary. Blocks while any connection of this process reads or
    /// writes.
    pub(crate) fn apply(
        &self,
        transaction: &Arc<Transaction>,
        cancelled: impl Fn() -> bool,
    ) -> Result<(), ApplyError> {
        let _all = self.lock_all(false, cancelled).ok_or(ApplyError::Cancelled)?;
        let mut state = locked(&self.state);
        if transaction.before.is_some_and(|before| before != state.position) {
            return Err(ApplyError::Mismatch(state.position));
        }
        if leaves_wal(&state, transaction) {
            return Err(ApplyError::Fatal);
        }
        let undo_page_size = state.image.page_size();
        let undo = state.image.apply(transaction.page_size, &transaction.pages, transaction.commit);
        if state.image.checksum() != transaction.after.checksum {
            return Err(ApplyError::Fatal);
        }
        self.write_pages(&mut state, &transaction.pages)?;
        if transaction.before.is_some() {
            state.history.push(Arc::clone(transaction), undo, undo_page_size);
        } else {
            state.history = History::from(transaction.after);
        }
        Ok(self.publish(&mut state, transaction.after, Some(transaction))?)
    }

    /// Recovers the files after a demotion: what SQLite has not committed is undone, what it has
    /// committed is moved from the WAL into the database file (`db.go`, `Recover`). Blocks while
    /// any transaction is open.
    pub(crate) fn recover(&self, cancelled: impl Fn() -> bool) -> Result<(), ApplyError> {
        let _all = self.lock_all(true, cancelled).ok_or(ApplyError::Cancelled)?;
        let mut state = locked(&self.state);
        let touched: Vec<u32> = state.wal_pages.iter().chain(&state.dirty).copied().collect();
        let pages = touched
            .into_iter()
            .filter_map(|pgno| Some((pgno, state.image.page(pgno)?.clone())))
            .collect();
        self.write_pages(&mut state, &pages)?;
        match std::fs::remove_file(self.path("-journal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let position = state.position;
        Ok(self.publish(&mut state, position, None)?)
    }

    /// Goes back to an earlier transaction, as if the later ones had never arrived. Sends no event.
    pub(crate) fn rewind(&self, txid: u64, cancelled: impl Fn() -> bool) -> Result<(), Error> {
        let too_short = || Error::HistoryTooShort { database: self.name.clone(), txid };
        let stuck =
            |error: ApplyError| Error::Invalid(format!("cannot rewind {:?}: {error}", self.name));
        let _all = self.lock_all(true, cancelled).ok_or_else(|| stuck(ApplyError::Cancelled))?;
        let mut state = locked(&self.state);
        let (position, page_size, undo) = state.history.rewind(txid).ok_or_else(too_short)?;
        state.image.apply(page_size, &undo.pages, undo.commit);
        let touched: Pages = state.image.all();
        self.write_pages(&mut state, &touched)
            .and_then(|()| self.publish(&mut state, position, None))
            .map_err(|error| stuck(error.into()))
    }

    /// Writes pages of the image to the database file and empties the WAL.
    fn write_pages(&self, state: &mut State, pages: &Pages) -> io::Result<()> {
        let page_size = u64::from(state.image.page_size());
        for (pgno, page) in pages {
            self.file.write_all_at(page, u64::from(pgno - 1) * page_size)?;
        }
        self.file.set_len(u64::from(state.image.len()) * page_size)?;
        if let Some(wal) = &state.wal {
            wal.set_len(0)?;
        }
        state.cursor = Cursor::default();
        state.wal_pages.clear();
        state.dirty.clear();
        locked(&self.index).reset(state.image.page_size(), state.image.len());
        Ok(())
    }
}

/// Whether the transaction switches the database from WAL to a rollback journal. LiteFS's replicas
/// do not survive that: they compute another checksum and exit.
fn leaves_wal(state: &State, transaction: &Transaction) -> bool {
    let page_one = transaction.pages.get(&1);
    transaction.before.is_some()
        && state.image.is_wal()
        && page_one.is_some_and(|page| !is_wal_page(page))
}
