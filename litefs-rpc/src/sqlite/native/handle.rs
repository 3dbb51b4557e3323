//! The handle on one connection's `sqlite3*`, and the callbacks that SQLite has for it. All
//! `unsafe` of the library is here.
//!
//! SQLite calls an automatic extension (<https://www.sqlite.org/c3ref/auto_extension.html>) for
//! each connection that is opened, on the thread that opens it. The one registered here does
//! nothing unless the connection was [announced](Announced), so other connections of the process
//! stay as they are.
//!
//! # Safety
//!
//! Two things make a question to SQLite sound, on whatever thread it is asked:
//!
//! - The connection is open. Its pointer is behind a lock, and SQLite itself removes it: the
//!   destructor of a SQL function runs when its connection is closed
//!   (<https://www.sqlite.org/c3ref/create_function.html>), before the memory is freed.
//! - No other thread uses the connection. The question holds SQLite's mutex of the connection. A
//!   connection without one, as SQLite opens them unless it is in serialized mode, is refused
//!   (<https://www.sqlite.org/threadsafe.html>).
//!
//! The thread that closes a connection holds SQLite's mutex and then takes the lock. A question
//! takes them in the other order, so it does not wait for the mutex while it holds the lock.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libsqlite3_sys as ffi;
use litefs_core::DatabaseUrl;

use super::commit_watch::CommitWatch;

/// The function whose destructor runs when the connection is closed. It returns NULL.
pub(in crate::sqlite) const MARKER_FUNCTION: &str = "litefs_connection_is_open";
const MARKER_FUNCTION_C: &CStr = c"litefs_connection_is_open";

/// One connection while it is open, and what it commits.
#[derive(Debug, Default)]
pub(super) struct Handle {
    db: Mutex<Option<Db>>,
    not_serialized: AtomicBool,
    pub(super) commits: CommitWatch,
}

/// An open connection, and the mutex that SQLite locks while it uses it.
#[derive(Debug)]
struct Db {
    sqlite: NonNull<ffi::sqlite3>,
    mutex: NonNull<ffi::sqlite3_mutex>,
}

// SAFETY: `Handle::ask` lets one thread at a time use the pointers, with SQLite's mutex held, and
// only while the connection is open.
unsafe impl Send for Db {}

impl Handle {
    /// Whether no transaction is open; `true` once the connection is closed.
    pub(super) fn is_autocommit(&self) -> bool {
        // SAFETY: `ask` passes a connection that is open and that no other thread uses.
        self.ask(true, |db| unsafe { ffi::sqlite3_get_autocommit(db) != 0 })
    }

    /// Whether the open transaction has the write lock of the main database.
    pub(super) fn is_writing(&self) -> bool {
        // SAFETY: as above; the name is a C string.
        let state = |db| unsafe { ffi::sqlite3_txn_state(db, c"main".as_ptr()) };
        self.ask(false, |db| state(db) == ffi::SQLITE_TXN_WRITE)
    }

    /// The count of pages that the connection has written; zero once it is closed.
    pub(super) fn pages_written(&self) -> i32 {
        // SAFETY: as above.
        self.ask(0, |db| unsafe { pages_written(db) })
    }

    /// Rolls back the open transaction, if there is one.
    pub(super) fn roll_back(&self) {
        // SAFETY: `ask` passes a connection that is open and that no other thread uses; the text is
        // a C string, and there are no callback and no message.
        self.ask((), |db| unsafe {
            if ffi::sqlite3_get_autocommit(db) == 0 {
                let (no_data, no_message) = (std::ptr::null_mut(), std::ptr::null_mut());
                ffi::sqlite3_exec(db, c"ROLLBACK".as_ptr(), None, no_data, no_message);
            }
        });
    }

    /// Whether the connection is closed, or was not opened.
    pub(super) fn is_closed(&self) -> bool {
        self.db().is_none()
    }

    /// Whether SQLite has opened the connection without a mutex.
    pub(super) fn is_not_serialized(&self) -> bool {
        self.not_serialized.load(Ordering::Relaxed)
    }

    /// Asks SQLite, or returns `closed`. If another thread is using the connection, waits until it
    /// has ended that.
    fn ask<T>(&self, closed: T, question: impl FnOnce(*mut ffi::sqlite3) -> T) -> T {
        loop {
            let db = self.db();
            let Some(Db { sqlite, mutex }) = &*db else { return closed };
            // SAFETY: the connection is open while `db` is locked, and its mutex with it.
            if unsafe { ffi::sqlite3_mutex_try(mutex.as_ptr()) } == ffi::SQLITE_OK {
                let answer = question(sqlite.as_ptr());
                // SAFETY: this thread has locked the mutex.
                unsafe { ffi::sqlite3_mutex_leave(mutex.as_ptr()) };
                return answer;
            }
            drop(db);
            std::thread::yield_now();
        }
    }

    fn db(&self) -> MutexGuard<'_, Option<Db>> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Safety
/// `db` is an open connection, and the calling thread may use it.
unsafe fn pages_written(db: *mut ffi::sqlite3) -> i32 {
    let (mut current, mut highest) = (0, 0);
    let counter = ffi::SQLITE_DBSTATUS_CACHE_WRITE;
    // SAFETY: as promised; both outputs are integers of this frame.
    unsafe { ffi::sqlite3_db_status(db, counter, &mut current, &mut highest, 0) };
    current
}

/// The connection that this thread is opening. Withdrawn when this is dropped.
pub(super) struct Announced;

impl Announced {
    pub(super) fn new(url: &str, handle: &Arc<Handle>) -> Self {
        let file =
            DatabaseUrl::parse(url).ok().and_then(|url| Some(url.path().file_name()?.to_owned()));
        ANNOUNCED.set(Some(Announcement { file, handle: Arc::clone(handle) }));
        Self
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = ANNOUNCED.try_with(|announced| announced.take());
    }
}

struct Announcement {
    /// The file's name; `None` for a database in memory.
    file: Option<OsString>,
    handle: Arc<Handle>,
}

thread_local! {
    static ANNOUNCED: RefCell<Option<Announcement>> = const { RefCell::new(None) };
}

/// Registers the automatic extension, unless it is registered. Called for each connection, because
/// the application may have reset the list. Returns whether SQLite has accepted it.
pub(super) fn register() -> bool {
    // SAFETY: the callback has the signature that SQLite asks for, and lives as long as the
    // process.
    unsafe { ffi::sqlite3_auto_extension(Some(on_open)) == ffi::SQLITE_OK }
}

/// Whether `db` is open on a file of this name.
///
/// # Safety
/// `db` is an open connection.
unsafe fn is_open_on(db: *mut ffi::sqlite3, file: Option<&OsStr>) -> bool {
    // SAFETY: as promised; the name is a C string.
    let path = unsafe { ffi::sqlite3_db_filename(db, c"main".as_ptr()) };
    // SAFETY: SQLite returns null or a C string that lives as long as the connection.
    let path = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) });
    let name = path.and_then(|path| Path::new(OsStr::from_bytes(path.to_bytes())).file_name());
    name == file
}

/// What SQLite keeps with the connection, for its callbacks.
struct Watched {
    db: NonNull<ffi::sqlite3>,
    handle: Arc<Handle>,
}

/// Called by SQLite for each connection of the process that is opened.
unsafe extern "C" fn on_open(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let Some(sqlite) = NonNull::new(db) else { return ffi::SQLITE_OK };
    // SAFETY: SQLite passes a connection that is open.
    let is_it = |announced: &mut Announcement| unsafe { is_open_on(db, announced.file.as_deref()) };
    let announced =
        ANNOUNCED.try_with(|announced| announced.borrow_mut().take_if(is_it)).ok().flatten();
    let Some(Announcement { handle, .. }) = announced else { return ffi::SQLITE_OK };
    // SAFETY: as above.
    let Some(mutex) = NonNull::new(unsafe { ffi::sqlite3_db_mutex(db) }) else {
        handle.not_serialized.store(true, Ordering::Relaxed);
        return ffi::SQLITE_OK;
    };
    *handle.db() = Some(Db { sqlite, mutex });
    let watched = Box::into_raw(Box::new(Watched { db: sqlite, handle })).cast::<c_void>();
    // SAFETY: `db` is open, the callbacks have the signatures that SQLite asks for, and `on_close`
    // frees the data. SQLite calls it also if this call fails.
    let made = unsafe {
        ffi::sqlite3_create_function_v2(
            db,
            MARKER_FUNCTION_C.as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            watched,
            Some(return_null),
            None,
            None,
            Some(on_close),
        )
    };
    if made == ffi::SQLITE_OK {
        // SAFETY: the function has not been destroyed, so the data lives; `on_close` removes the
        // hook before it frees the data.
        unsafe { ffi::sqlite3_commit_hook(db, Some(on_commit), watched) };
    }
    made
}

/// A function that sets no result returns NULL.
unsafe extern "C" fn return_null(
    _: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
}

/// Called by SQLite when a transaction that has a write lock is about to be committed
/// (<https://www.sqlite.org/c3ref/commit_hook.html>). Zero lets it continue; another value makes it
/// a ROLLBACK.
unsafe extern "C" fn on_commit(watched: *mut c_void) -> c_int {
    // SAFETY: the data that `on_open` gave to SQLite, freed only after the hook is removed.
    let Watched { db, handle } = unsafe { &*watched.cast::<Watched>() };
    // SAFETY: SQLite calls this on the thread that uses the connection.
    let pages = unsafe { pages_written(db.as_ptr()) };
    // A reader that panics has read nothing; a panic must not reach SQLite.
    let begun = catch_unwind(AssertUnwindSafe(|| handle.commits.begin(pages)));
    let continues = begun.unwrap_or_else(|_| {
        handle.commits.begin_unread(pages);
        true
    });
    c_int::from(!continues)
}

/// Called by SQLite when the connection is closed, or when the application registers another
/// function of that name.
unsafe extern "C" fn on_close(watched: *mut c_void) {
    // SAFETY: the data that `on_open` gave to SQLite, which calls this once.
    let Watched { db, handle } = *unsafe { Box::from_raw(watched.cast::<Watched>()) };
    // SAFETY: SQLite destroys functions before it frees the connection's memory.
    unsafe { ffi::sqlite3_commit_hook(db.as_ptr(), None, std::ptr::null_mut()) };
    *handle.db() = None;
}
