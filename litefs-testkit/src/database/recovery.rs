//! Opening a database's files: new ones, and those that an earlier run of the node has left.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Database, State, record};
use crate::context::Context;
use crate::image::{Image, Page, Pages};
use crate::journal;
use crate::position::Position;
use crate::sync::locked;
use crate::transaction::History;
use crate::wal::{self, Cursor, Salt};

/// The page size of a database that the testkit itself creates.
const NEW_PAGE_SIZE: usize = 4096;

impl Database {
    /// Opens the database `name`, which is empty if there is no such file.
    ///
    /// The WAL beyond the recorded position is truncated (LiteFS: "wal-sync: truncating wal"), the
    /// rest is moved into the database file; a rollback journal is undone. A position that does not
    /// match the files is discarded, so that the primary sends a snapshot.
    pub(crate) fn open(context: &Arc<Context>, name: &str) -> io::Result<Self> {
        let file = open_rw(&context.path(name))?;
        keep_others_out(&file, true)?;
        let record = open_rw(&context.data_path(&format!("{name}.record")))?;
        let (position, salt, captured) = record::parse(&io::read_to_string(&record)?);
        undo_journal(&context.path(&format!("{name}-journal")), &file)?;
        let image = recovered_image(context, name, &file, salt, captured)?;
        let sound = image.checksum() == position.checksum;
        let position = if sound { position } else { Position::default() };
        let state = State {
            history: History::from(position),
            image,
            position,
            cursor: Cursor::default(),
            wal_pages: BTreeSet::new(),
            dirty: BTreeSet::new(),
            wal: None,
            position_file: context.files.create_position(name, position)?,
            record,
        };
        let database = Self {
            name: name.to_owned(),
            context: Arc::clone(context),
            file,
            locks: Mutex::default(),
            index: Mutex::default(),
            state: Mutex::new(state),
        };
        database.publish(&mut locked(&database.state), position, None)?;
        Ok(database)
    }

    /// Creates an empty database in WAL mode as transaction 1, unless it exists.
    pub(crate) fn initialize(&self) -> io::Result<()> {
        let mut state = locked(&self.state);
        if state.image.len() > 0 {
            return self.adopt(&mut state);
        }
        let page = Page::from(empty_wal_database());
        self.file.write_all_at(&page, 0)?;
        self.commit(&mut state, NEW_PAGE_SIZE as u32, Pages::from([(1, page)]), 1)
    }

    /// Unlocks the file for the next incarnation of the node, though connections to this one may
    /// still hold it open.
    pub(crate) fn release_file(&self) {
        if let Err(error) = keep_others_out(&self.file, false) {
            tracing::error!(%error, database = self.name, "cannot unlock the database file");
        }
    }

    /// A primary whose files do not match its record continues from the files.
    fn adopt(&self, state: &mut State) -> io::Result<()> {
        if state.position.txid > 0 {
            return Ok(());
        }
        let position = Position { txid: 1, checksum: state.image.checksum() };
        state.history = History::from(position);
        self.publish(state, position, None)
    }
}

fn open_rw(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Rolls back a transaction that a killed node had open, before SQLite sees the journal.
fn undo_journal(path: &Path, file: &File) -> io::Result<()> {
    match fs::read(path) {
        Ok(bytes) => journal::roll_back(&bytes, file).and_then(|()| fs::remove_file(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Truncates the WAL to the captured part, moves it into the database file and removes it.
fn recovered_image(
    context: &Context,
    name: &str,
    file: &File,
    salt: Salt,
    captured: u64,
) -> io::Result<Image> {
    let path = context.path(&format!("{name}-wal"));
    let found = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
        Ok(wal) => {
            wal.set_len(wal::kept_bytes(&wal, salt, captured)?)?;
            wal::committed(&wal, Cursor::default())?
        }
    };
    if let Some(found) = found {
        let page_size = u64::from(found.page_size);
        for (pgno, page) in &found.pages {
            file.write_all_at(page, u64::from(pgno - 1) * page_size)?;
        }
        file.set_len(u64::from(found.commit) * page_size)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(Image::from_file(&fs::read(context.path(name))?))
}

/// A database in WAL mode with an empty schema
/// (<https://www.sqlite.org/fileformat2.html>, sections 1.3 and 1.6).
fn empty_wal_database() -> Vec<u8> {
    let mut page = vec![0; NEW_PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(NEW_PAGE_SIZE as u16).to_be_bytes());
    // Write and read version 2: WAL. No reserved bytes; payload fractions as the format requires.
    page[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    // Change counter and size in pages; later schema format, text encoding and "version-valid-for".
    for (offset, value) in [(24, 1u32), (28, 1), (44, 4), (56, 1), (92, 1), (96, 3_046_000)] {
        page[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
    }
    // An empty leaf of a table b-tree whose cells begin at the end of the page.
    page[100] = 13;
    page[105..107].copy_from_slice(&(NEW_PAGE_SIZE as u16).to_be_bytes());
    page
}

/// Locks the bytes that SQLite locks, so that a SQLite that does not use the VFS (another program,
/// or this one without `vfs=`) fails with "database is locked" and cannot damage the file.
#[cfg(target_os = "linux")]
fn keep_others_out(file: &File, keep: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    // SQLite's pending, reserved and 510 shared bytes (os.h).
    let region = libc::flock {
        l_type: if keep { libc::F_WRLCK } else { libc::F_UNLCK } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0x4000_0000,
        l_len: 512,
        l_pid: 0,
    };
    // The lock belongs to the open file, not to the process: closing another descriptor keeps it.
    fcntl(file, FcntlArg::F_OFD_SETLK(&region)).map(drop).map_err(io::Error::from)
}

/// Other systems have no locks that belong to an open file: nothing prevents other access.
#[cfg(not(target_os = "linux"))]
fn keep_others_out(_file: &File, _keep: bool) -> io::Result<()> {
    Ok(())
}
