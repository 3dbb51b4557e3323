//! Open files of the VFS: which operations SQLite may do on each, and the codes of a refusal.
//!
//! The codes are those that applications on a LiteFS mount see: a refused write is
//! `SQLITE_IOERR_WRITE` (778), a refused rollback journal `SQLITE_READONLY_DIRECTORY` (1544).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use sqlite_plugin::flags::{LockLevel, ShmLockMode};
use sqlite_plugin::vars;
use sqlite_plugin::vfs::{VfsHandle, VfsResult};

use crate::database::Database;
use crate::database::capture::Capture;
use crate::faults::DiskFault;
use crate::locks::{Owner, WRITE_SLOT};
use crate::sync::locked;
use crate::wal::is_commit_header;
use crate::wal_index::REGION_SIZE;

/// The bytes that SQLite overwrites with zeros to end a journal in `journal_mode=PERSIST`.
const JOURNAL_HEADER_ZEROS: [u8; 28] = [0; 28];

/// A file that SQLite has open.
pub(crate) enum Handle {
    /// A database.
    Main(MainFile),
    /// A write-ahead log.
    Wal(Arc<Database>, Arc<File>),
    /// A rollback journal.
    Journal(Arc<Database>, File),
    /// Temporary databases and journals, in memory.
    Temporary(Vec<u8>),
}

impl VfsHandle for Handle {
    fn readonly(&self) -> bool {
        matches!(self, Self::Main(main) if main.readonly)
    }

    fn in_memory(&self) -> bool {
        false
    }
}

/// Opens the WAL; LiteFS lets replicas create one.
pub(super) fn open_wal(database: Arc<Database>, create: bool) -> VfsResult<Handle> {
    let wal = database.open_wal(create).map_err(|_| vars::SQLITE_CANTOPEN)?;
    Ok(Handle::Wal(database, wal))
}

/// Opens the rollback journal. A replica may not create one: its write fails here.
pub(super) fn open_journal(database: Arc<Database>, create: bool) -> VfsResult<Handle> {
    if create && !database.context.is_writable() {
        return Err(database.context.refuse(vars::SQLITE_READONLY_DIRECTORY));
    }
    let path = database.path("-journal");
    let journal = OpenOptions::new().read(true).write(true).create(create).open(path);
    journal.map(|file| Handle::Journal(database, file)).map_err(|_| vars::SQLITE_CANTOPEN)
}

/// The journal is about to be removed: the present content of the database file is committed.
pub(super) fn end_journal(database: &Database, failure: i32) -> VfsResult<()> {
    match database.capture_rollback() {
        Ok(Capture::Done) => Ok(()),
        // LiteFS answers the unlink with an error. SQLite then rolls back, or finds the journal
        // later.
        Ok(Capture::Fatal) if !database.context.is_writable() => {
            Err(database.context.refuse(failure))
        }
        Ok(Capture::Fatal) => {
            database.context.die();
            Ok(())
        }
        Err(_) => Err(failure),
    }
}

fn alive(database: &Database, failure: i32) -> VfsResult<()> {
    if database.context.is_served() { Ok(()) } else { Err(failure) }
}

/// The same for a file that a reader needs, which SQLite may have cached, mapped or locked already.
fn readable(database: &Database, failure: i32) -> VfsResult<()> {
    let cached = || database.context.faults.with(|settings| settings.cached_reads);
    if database.context.is_served() || cached() { Ok(()) } else { Err(failure) }
}

fn disk(database: &Database) -> VfsResult<()> {
    match database.context.faults.with(|settings| settings.disk) {
        DiskFault::None => Ok(()),
        DiskFault::Full => Err(vars::SQLITE_FULL),
        DiskFault::Io => Err(vars::SQLITE_IOERR_WRITE),
    }
}

/// Reads until `data` is full or the file ends.
fn read_at(file: &File, offset: usize, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(&mut data[done..], (offset + done) as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Handle {
    pub(super) fn main(&mut self) -> Option<&mut MainFile> {
        match self {
            Self::Main(main) => Some(main),
            _ => None,
        }
    }

    fn file(&self) -> Option<(&Database, &File)> {
        match self {
            Self::Main(main) => Some((&main.database, &main.database.file)),
            Self::Wal(database, file) => Some((database, file)),
            Self::Journal(database, file) => Some((database, file)),
            Self::Temporary(_) => None,
        }
    }

    pub(super) fn size(&self) -> VfsResult<usize> {
        match (self, self.file()) {
            (Self::Temporary(bytes), _) => Ok(bytes.len()),
            (_, Some((database, file))) => {
                readable(database, vars::SQLITE_IOERR_FSTAT)?;
                file.metadata()
                    .map(|meta| meta.len() as usize)
                    .map_err(|_| vars::SQLITE_IOERR_FSTAT)
            }
            (_, None) => Err(vars::SQLITE_IOERR_FSTAT),
        }
    }

    pub(super) fn read(&self, offset: usize, data: &mut [u8]) -> VfsResult<usize> {
        if let Self::Temporary(bytes) = self {
            let from = bytes.get(offset..).unwrap_or_default();
            let count = from.len().min(data.len());
            data[..count].copy_from_slice(&from[..count]);
            return Ok(count);
        }
        let (database, file) = self.file().ok_or(vars::SQLITE_IOERR_READ)?;
        readable(database, vars::SQLITE_IOERR_READ)?;
        read_at(file, offset, data).map_err(|_| vars::SQLITE_IOERR_READ)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> VfsResult<()> {
        if let Self::Temporary(bytes) = self {
            let end = offset + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset..end].copy_from_slice(data);
            return Ok(());
        }
        let (database, file) = self.file().ok_or(vars::SQLITE_IOERR_WRITE)?;
        alive(database, vars::SQLITE_IOERR_WRITE)?;
        disk(database)?;
        if !self.may_write(database, offset, data) {
            return Err(database.context.refuse(vars::SQLITE_IOERR_WRITE));
        }
        if matches!(self, Self::Journal(..)) && offset == 0 && data == JOURNAL_HEADER_ZEROS {
            end_journal(database, vars::SQLITE_IOERR_WRITE)?;
        }
        file.write_all_at(data, offset as u64).map_err(|_| vars::SQLITE_IOERR_WRITE)
    }

    /// Syncs the file's data, and the metadata needed to read them, if a test has asked for that.
    pub(super) fn sync(&self) -> VfsResult<()> {
        let Some((database, file)) = self.file() else { return Ok(()) };
        if !database.context.faults.with(|settings| settings.sync) {
            return Ok(());
        }
        file.sync_data().map_err(|_| vars::SQLITE_IOERR_FSYNC)
    }

    fn may_write(&self, database: &Database, offset: usize, data: &[u8]) -> bool {
        match self {
            // `locking_mode=EXCLUSIVE` writes without the lock whose release is the commit; LiteFS
            // refuses it.
            Self::Wal(..) => {
                let writer = locked(&database.locks).wal_writer();
                writer.is_some_and(|owner| {
                    database.context.enter_write(owner, is_commit_header(offset, data))
                })
            }
            Self::Main(_) => database.context.is_writable() && database.note_write(offset, data),
            Self::Journal(..) => database.context.is_writable(),
            Self::Temporary(_) => true,
        }
    }

    pub(super) fn truncate(&mut self, size: usize) -> VfsResult<()> {
        if let Self::Temporary(bytes) = self {
            bytes.truncate(size);
            return Ok(());
        }
        let (database, file) = self.file().ok_or(vars::SQLITE_IOERR_TRUNCATE)?;
        alive(database, vars::SQLITE_IOERR_TRUNCATE)?;
        match self {
            Self::Wal(..) if size == 0 => database.forget_wal(false),
            Self::Journal(..) if size == 0 => end_journal(database, vars::SQLITE_IOERR_TRUNCATE)?,
            Self::Main(_) if !database.context.is_writable() => {
                return Err(database.context.refuse(vars::SQLITE_IOERR_TRUNCATE));
            }
            _ => {}
        }
        file.set_len(size as u64).map_err(|_| vars::SQLITE_IOERR_TRUNCATE)
    }
}

/// A connection's database file, with the locks that it holds.
pub(crate) struct MainFile {
    database: Arc<Database>,
    owner: Owner,
    readonly: bool,
    mapped: bool,
}

impl MainFile {
    pub(super) fn new(database: Arc<Database>, owner: Owner, readonly: bool) -> Self {
        Self { database, owner, readonly, mapped: false }
    }

    pub(super) fn lock(&self, level: LockLevel) -> VfsResult<()> {
        alive(&self.database, vars::SQLITE_IOERR_LOCK)?;
        let got = locked(&self.database.locks).raise(self.owner, level);
        if got { Ok(()) } else { Err(vars::SQLITE_BUSY) }
    }

    pub(super) fn unlock(&self, level: LockLevel) -> VfsResult<()> {
        let wrote = locked(&self.database.locks).level(self.owner) >= LockLevel::Reserved;
        if wrote && self.database.context.is_served() && !self.database.is_wal() {
            // With journals in memory, or none, nothing else marks the end. SQLite ignores errors
            // here.
            let _ = end_journal(&self.database, vars::SQLITE_IOERR_UNLOCK);
        }
        locked(&self.database.locks).lower(self.owner, level);
        Ok(())
    }

    pub(super) fn reserved(&self) -> bool {
        locked(&self.database.locks).reserved()
    }

    pub(super) fn map_region(
        &mut self,
        region: usize,
        size: usize,
        extend: bool,
    ) -> VfsResult<Option<NonNull<u8>>> {
        readable(&self.database, vars::SQLITE_IOERR_SHMMAP)?;
        if size != REGION_SIZE {
            return Err(vars::SQLITE_IOERR_SHMMAP);
        }
        let mut index = locked(&self.database.index);
        if !std::mem::replace(&mut self.mapped, true) {
            index.attach();
        }
        Ok(index.region(region, extend))
    }

    pub(super) fn lock_index(
        &self,
        offset: usize,
        count: usize,
        mode: ShmLockMode,
    ) -> VfsResult<()> {
        let unlock = matches!(mode, ShmLockMode::UnlockShared | ShmLockMode::UnlockExclusive);
        if !unlock && self.database.context.faults.with(|settings| settings.refuse_locks) {
            return Err(vars::SQLITE_PROTOCOL);
        }
        match mode {
            _ if unlock => {}
            ShmLockMode::LockShared => readable(&self.database, vars::SQLITE_IOERR_SHMLOCK)?,
            _ => alive(&self.database, self.unlockable())?,
        }
        if matches!(mode, ShmLockMode::UnlockExclusive) && offset == WRITE_SLOT {
            self.end_write();
        }
        let got = locked(&self.database.locks).shm(self.owner, offset, count, mode);
        if got { Ok(()) } else { Err(vars::SQLITE_BUSY) }
    }

    /// SQLite on FUSE reports every failure to lock the index as a lock of another process.
    fn unlockable(&self) -> i32 {
        let cached = self.database.context.faults.with(|settings| settings.cached_reads);
        if cached { vars::SQLITE_BUSY } else { vars::SQLITE_IOERR_SHMLOCK }
    }

    /// The release of the write lock is the commit. SQLite ignores errors of it, so a node that
    /// cannot commit dies.
    fn end_write(&self) {
        let held = locked(&self.database.locks).wal_writer() == Some(self.owner);
        if held
            && self.database.context.is_served()
            && self.database.capture_wal(self.owner) == Capture::Fatal
        {
            self.database.context.die();
        }
    }

    pub(super) fn unmap(&mut self) {
        if std::mem::replace(&mut self.mapped, false) {
            self.end_write();
            locked(&self.database.locks).shm(self.owner, 0, 8, ShmLockMode::UnlockShared);
            locked(&self.database.locks).shm(self.owner, 0, 8, ShmLockMode::UnlockExclusive);
            locked(&self.database.index).detach();
        }
    }

    pub(super) fn close(&mut self) {
        self.unmap();
        locked(&self.database.locks).release(self.owner);
        self.database.context.leave_write(self.owner);
    }
}
