//! One database on one node: its files, locks, wal-index and position.

pub(crate) mod apply;
pub(crate) mod capture;
mod record;
mod recovery;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::events::Event;
use crate::image::{Image, Pages, page_size_of};
use crate::locks::Locks;
use crate::position::Position;
use crate::special::write_position;
use crate::sync::locked;
use crate::transaction::{CatchUp, History, Transaction};
use crate::wal::Cursor;
use crate::wal_index::WalIndex;

/// Suffixes that SQLite or LiteFS reserves; the name of a database cannot end with one.
const RESERVED_SUFFIXES: [&str; 5] = ["-journal", "-wal", "-shm", "-pos", "-lock"];

/// Whether a database may have this name (LiteFS has no subdirectories).
pub(crate) fn is_database_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('/')
        && !name.starts_with('.')
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The state that changes with each transaction.
pub(super) struct State {
    pub(super) image: Image,
    pub(super) position: Position,
    pub(super) history: History,
    /// How far the WAL has been captured.
    pub(super) cursor: Cursor,
    /// Pages with captured frames in the present WAL.
    pub(super) wal_pages: BTreeSet<u32>,
    /// Pages written to the database file since its last captured transaction.
    pub(super) dirty: BTreeSet<u32>,
    pub(super) wal: Option<Arc<File>>,
    position_file: File,
    record: File,
}

/// A database that the VFS serves.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) context: Arc<Context>,
    pub(crate) file: File,
    pub(crate) locks: Mutex<Locks>,
    pub(crate) index: Mutex<WalIndex>,
    state: Mutex<State>,
}

impl Database {
    /// The database's position.
    pub(crate) fn position(&self) -> Position {
        locked(&self.state).position
    }

    /// What a node at `position` lacks. The snapshot, if one is needed, is made here.
    pub(crate) fn catch_up(&self, position: Position) -> Option<Arc<Transaction>> {
        let state = locked(&self.state);
        match state.history.after(position) {
            CatchUp::Nothing => None,
            CatchUp::Next(transaction) => Some(transaction),
            CatchUp::Snapshot if state.position == Position::default() => None,
            CatchUp::Snapshot => Some(Arc::new(self.snapshot(&state))),
        }
    }

    fn snapshot(&self, state: &State) -> Transaction {
        Transaction {
            database: self.name.clone(),
            before: None,
            after: state.position,
            page_size: state.image.page_size(),
            commit: state.image.len(),
            timestamp_ms: crate::events::now_ms(),
            pages: state.image.all(),
        }
    }

    /// The path of a file of this database: `""` for the database file, `"-wal"`, `"-journal"`.
    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        self.context.path(&format!("{}{suffix}", self.name))
    }

    /// Opens the WAL; creates it if `create`.
    pub(crate) fn open_wal(&self, create: bool) -> io::Result<Arc<File>> {
        let mut state = locked(&self.state);
        if let Some(wal) = &state.wal {
            return Ok(Arc::clone(wal));
        }
        let mut options = OpenOptions::new();
        let wal = Arc::new(options.read(true).write(true).create(create).open(self.path("-wal"))?);
        state.wal = Some(Arc::clone(&wal));
        Ok(wal)
    }

    /// SQLite has truncated or deleted the WAL; the next capture reads from the beginning.
    pub(crate) fn forget_wal(&self, deleted: bool) {
        let mut state = locked(&self.state);
        state.cursor = Cursor::default();
        state.wal_pages.clear();
        if deleted {
            state.wal = None;
        }
    }

    /// SQLite is about to write to the database file, in a checkpoint or in a transaction with a
    /// rollback journal. Returns whether it may: LiteFS accepts whole pages only, and a database
    /// keeps its page size.
    pub(crate) fn note_write(&self, offset: usize, data: &[u8]) -> bool {
        let mut state = locked(&self.state);
        let page_size = match state.image.page_size() as usize {
            0 => data.len().max(1),
            page_size => page_size,
        };
        let resized = offset == 0 && page_size_of(data) as usize != page_size;
        let whole_page = data.len() == page_size && offset.is_multiple_of(page_size);
        if whole_page && !resized {
            state.dirty.insert((offset / page_size) as u32 + 1);
        }
        whole_page && !resized
    }

    /// Whether page 1 declares WAL mode, as of the last transaction.
    pub(crate) fn is_wal(&self) -> bool {
        locked(&self.state).image.is_wal()
    }

    /// Records a commit of this node: advances the position by one, writes `-pos`, and sends an
    /// event.
    fn commit(
        &self,
        state: &mut State,
        page_size: u32,
        pages: Pages,
        commit: u32,
    ) -> io::Result<()> {
        let before = state.position;
        let undo_page_size = state.image.page_size();
        let undo = state.image.apply(page_size, &pages, commit);
        let after = Position { txid: before.txid + 1, checksum: state.image.checksum() };
        let transaction = Arc::new(Transaction {
            database: self.name.clone(),
            before: Some(before),
            after,
            page_size,
            commit,
            timestamp_ms: crate::events::now_ms(),
            pages,
        });
        state.history.push(Arc::clone(&transaction), undo, undo_page_size);
        self.publish(state, after, Some(&transaction))
    }

    /// Sets the database's position in the record and in `-pos`, and notifies waiting threads and
    /// listeners.
    fn publish(
        &self,
        state: &mut State,
        position: Position,
        event: Option<&Transaction>,
    ) -> io::Result<()> {
        state.position = position;
        state.record.write_all_at(record::text(position, state.cursor).as_bytes(), 0)?;
        write_position(&state.position_file, position)?;
        if let Some(transaction) = event {
            self.context.emit(&Event::Tx { db: self.name.clone(), data: transaction.event_data() });
        }
        self.context.signal.bump();
        Ok(())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .field("position", &self.position())
            .finish()
    }
}
