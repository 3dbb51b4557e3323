//! What SQLite itself knows of a connection and Diesel does not tell: whether a transaction is
//! open, whether it writes, and whether pages were written.
//!
//! Diesel gives no access to its `sqlite3*`. SQLite calls an automatic extension
//! (<https://www.sqlite.org/c3ref/auto_extension.html>) for each connection that is opened, on the
//! thread that opens it. The one registered here does nothing unless [`Opened::establish`] has
//! announced that connection, so other connections of the process stay as they are.
//!
//! # Safety
//!
//! A [`Native`] must not use its `sqlite3*` after the connection was closed. The pointer therefore
//! lies in a slot, behind a lock, and SQLite itself empties the slot: the destructor of a SQL
//! function runs when its connection is closed
//! (<https://www.sqlite.org/c3ref/create_function.html>), before the memory is given back.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::connection::{
    Connection, InstrumentationEvent, SimpleConnection, get_default_instrumentation,
};
use diesel::result::{ConnectionError, ConnectionResult};
use diesel::sqlite::SqliteConnection;
use libsqlite3_sys as ffi;
use litefs_core::{DatabaseUrl, Position};

use crate::executor::CommitExpectation;

/// The function whose destructor tells that the connection is closed. It returns NULL.
pub(super) const MARKER_FUNCTION: &str = "litefs_connection_is_open";
const MARKER_FUNCTION_C: &CStr = c"litefs_connection_is_open";

/// A connection that was just opened, and what SQLite knows of it.
#[expect(missing_debug_implementations, reason = "Diesel's connection has none")]
pub struct Opened {
    /// The connection, as Diesel knows it.
    pub connection: SqliteConnection,
    /// The same, as SQLite knows it.
    pub native: Native,
}

impl Opened {
    /// Opens a connection, as [`SqliteConnection::establish`] does. Blocks.
    ///
    /// # Errors
    /// What SQLite says, and [`ConnectionError::BadConnection`] if SQLite has not called the
    /// automatic extension: without it commits could not be confirmed.
    pub fn establish(url: &str) -> ConnectionResult<Self> {
        register()?;
        let slot = Arc::<Slot>::default();
        let announced = Announced::new(url, &slot);
        let mut connection = SqliteConnection::establish(url)?;
        drop(announced);
        if slot.is_empty() || !has_marker(&mut connection) {
            return Err(not_announced());
        }
        Ok(Self { connection, native: Native { slot } })
    }
}

/// Opens the connection of an executor or a checkpointer. Called again after the connection had to
/// be closed. Blocks.
pub type Open = Box<dyn FnMut() -> ConnectionResult<Opened> + Send>;

fn not_announced() -> ConnectionError {
    ConnectionError::BadConnection(
        "SQLite did not call LiteFS for Rust's automatic extension for this connection: \
         sqlite3_reset_auto_extension() or an extension that opens connections has removed it"
            .into(),
    )
}

/// The slot may have gone to a connection that was opened on the way, by an instrumentation.
fn has_marker(connection: &mut SqliteConnection) -> bool {
    connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let asked = connection.batch_execute(&format!("SELECT {MARKER_FUNCTION}()"));
    connection.set_instrumentation(get_default_instrumentation());
    // Any other error is of the file, which SQLite reads before it looks for functions.
    !asked.is_err_and(|error| error.to_string().starts_with("no such function"))
}

/// Reads LiteFS's position of the database. `None`: it cannot be read.
pub type ReadPosition = Box<dyn Fn() -> Option<Position> + Send>;

/// What the connection has committed since [`Native::watch_commits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// LiteFS's position when the last commit began, read with the write lock held. So no other
    /// connection can have moved it since then but before the commit.
    pub before: Option<Position>,
    /// Whether the last commit has written pages: then the position must have advanced.
    pub wrote: bool,
    /// An earlier one of the commits has written pages, and the position had not advanced when the
    /// next began.
    pub dropped: bool,
}

impl From<Option<Committed>> for CommitExpectation {
    fn from(committed: Option<Committed>) -> Self {
        match committed {
            None => Self::Unchanged,
            Some(Committed { dropped: true, .. }) => Self::Dropped,
            Some(Committed { wrote: false, .. }) => Self::Unchanged,
            Some(Committed { before, .. }) => before.map_or(Self::Advances, Self::AdvancesFrom),
        }
    }
}

/// SQLite's own view of one connection. After the connection was closed every question has the
/// answer of a connection that has done nothing.
///
/// Use it on the thread that has the connection.
#[derive(Debug)]
pub struct Native {
    slot: Arc<Slot>,
}

impl Native {
    /// Whether no transaction is open (<https://www.sqlite.org/c3ref/get_autocommit.html>). What
    /// was written is committed only then.
    #[must_use]
    pub fn is_autocommit(&self) -> bool {
        // SAFETY: `ask` calls this only while the connection is open.
        self.slot.ask(true, |db| unsafe { ffi::sqlite3_get_autocommit(db) != 0 })
    }

    /// Whether the open transaction has the write lock of the main database
    /// (<https://www.sqlite.org/c3ref/txn_state.html>).
    #[must_use]
    pub fn is_writing(&self) -> bool {
        // SAFETY: as above; the name is a C string.
        self.slot.ask(false, |db| unsafe {
            ffi::sqlite3_txn_state(db, c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE
        })
    }

    /// A counter that grows with each page that this connection writes to a file: in WAL mode with
    /// each frame, those of COMMIT and those that a transaction writes earlier because the cache is
    /// full. Temporary and attached databases count too. The counter wraps, so compare for equality
    /// (`SQLITE_DBSTATUS_CACHE_WRITE`, <https://www.sqlite.org/c3ref/c_dbstatus_options.html>).
    #[must_use]
    pub fn pages_written(&self) -> i32 {
        self.slot.ask(0, pages_written)
    }

    /// How positions are read when a commit begins. Without it they are not known.
    pub fn read_positions_by(&self, read: ReadPosition) {
        self.slot.commits().read = Some(read);
    }

    /// Forgets the commits so far: [`committed`](Self::committed) answers for those after this.
    pub fn watch_commits(&self) {
        let mut commits = self.slot.commits();
        commits.last = None;
        commits.dropped = false;
    }

    /// What was committed since [`watch_commits`](Self::watch_commits); `None` if nothing was, or
    /// only to temporary databases. A commit that has written no page is one that has changed
    /// nothing: an UPDATE to the values that are there already, for example.
    #[must_use]
    pub fn committed(&self) -> Option<Committed> {
        let pages = self.pages_written();
        let commits = self.slot.commits();
        let last = commits.last?;
        let (before, wrote) = (last.before, pages != last.pages);
        Some(Committed { before, wrote, dropped: commits.dropped })
    }
}

fn pages_written(db: *mut ffi::sqlite3) -> i32 {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the callers hand over an open connection; both outputs are integers of this frame.
    unsafe {
        ffi::sqlite3_db_status(db, ffi::SQLITE_DBSTATUS_CACHE_WRITE, &mut current, &mut highest, 0)
    };
    current
}

/// Where the pointer of one connection is kept while it is open, and what it has committed.
#[derive(Debug, Default)]
struct Slot {
    db: Mutex<Option<Db>>,
    commits: Mutex<Commits>,
}

#[derive(Debug)]
struct Db(NonNull<ffi::sqlite3>);

// SAFETY: SQLite's connections may be used from any thread in its default threading mode, and the
// slot's lock lets one thread at a time use the pointer.
unsafe impl Send for Db {}

#[derive(Default)]
struct Commits {
    read: Option<ReadPosition>,
    last: Option<LastCommit>,
    dropped: bool,
}

/// What was true when a commit began.
#[derive(Debug, Clone, Copy)]
struct LastCommit {
    before: Option<Position>,
    pages: i32,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commits").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Commits {
    fn begin(&mut self, pages: i32) {
        let before = self.read.as_ref().and_then(|read| read());
        let unmoved =
            |last: LastCommit| last.pages != pages && before.is_some() && last.before == before;
        self.dropped |= self.last.is_some_and(unmoved);
        self.last = Some(LastCommit { before, pages });
    }
}

impl Slot {
    /// With the lock held, so that the connection cannot be closed meanwhile.
    fn ask<T>(&self, closed: T, question: impl FnOnce(*mut ffi::sqlite3) -> T) -> T {
        match &*self.db.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(db) => question(db.0.as_ptr()),
            None => closed,
        }
    }

    fn is_empty(&self) -> bool {
        self.ask(true, |_| false)
    }

    fn set(&self, db: Option<Db>) {
        *self.db.lock().unwrap_or_else(PoisonError::into_inner) = db;
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What SQLite keeps with the connection, for its callbacks.
struct Watched {
    db: NonNull<ffi::sqlite3>,
    slot: Arc<Slot>,
}

/// The connection that this thread is opening. Taken back when this is dropped, whatever happens.
struct Announced;

impl Announced {
    fn new(url: &str, slot: &Arc<Slot>) -> Self {
        let file =
            DatabaseUrl::parse(url).ok().and_then(|url| Some(url.path().file_name()?.to_owned()));
        ANNOUNCED.set(Some(Announcement { file, slot: Arc::clone(slot) }));
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
    slot: Arc<Slot>,
}

thread_local! {
    static ANNOUNCED: RefCell<Option<Announcement>> = const { RefCell::new(None) };
}

/// Again for each connection: somebody may have reset the list, and what is on it already stays.
fn register() -> ConnectionResult<()> {
    // SAFETY: the callback has the signature that SQLite asks for, and lives as long as the
    // process.
    match unsafe { ffi::sqlite3_auto_extension(Some(on_open)) } {
        ffi::SQLITE_OK => Ok(()),
        _ => Err(not_announced()),
    }
}

/// Whether `db` is open on a file of this name.
///
/// # Safety
/// `db` is an open connection.
unsafe fn is_open_on(db: *mut ffi::sqlite3, file: Option<&OsStr>) -> bool {
    // SAFETY: as promised; SQLite answers a C string that lives as long as the connection, or null.
    let path = unsafe { ffi::sqlite3_db_filename(db, c"main".as_ptr()) };
    let path = NonNull::new(path.cast_mut()).map(|path| unsafe { CStr::from_ptr(path.as_ptr()) });
    let name = path.and_then(|path| Path::new(OsStr::from_bytes(path.to_bytes())).file_name());
    name == file
}

/// Called by SQLite for each connection of the process that is opened.
unsafe extern "C" fn on_open(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let Some(open) = NonNull::new(db) else { return ffi::SQLITE_OK };
    // SAFETY: SQLite hands over a connection that is open.
    let is_it = |announced: &mut Announcement| unsafe { is_open_on(db, announced.file.as_deref()) };
    let announced =
        ANNOUNCED.try_with(|announced| announced.borrow_mut().take_if(is_it)).ok().flatten();
    let Some(Announcement { slot, .. }) = announced else { return ffi::SQLITE_OK };
    slot.set(Some(Db(open)));
    let watched = Box::into_raw(Box::new(Watched { db: open, slot })).cast::<c_void>();
    // SAFETY: `db` is the connection that SQLite is opening. The data of both callbacks is freed by
    // the function's destructor, which takes the hook back before; SQLite calls the destructor if
    // this call fails, too, and then there is no hook yet.
    unsafe {
        let made = ffi::sqlite3_create_function_v2(
            db,
            MARKER_FUNCTION_C.as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            watched,
            Some(return_null),
            None,
            None,
            Some(on_close),
        );
        if made == ffi::SQLITE_OK {
            ffi::sqlite3_commit_hook(db, Some(on_commit), watched);
        }
        made
    }
}

/// A function that sets no result returns NULL.
unsafe extern "C" fn return_null(
    _: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
}

/// Called by SQLite when a transaction that has a write lock is about to be committed
/// (<https://www.sqlite.org/c3ref/commit_hook.html>). Zero lets it go on.
unsafe extern "C" fn on_commit(watched: *mut c_void) -> c_int {
    // SAFETY: the data that `on_open` gave to SQLite, freed only after the hook is taken back.
    let Watched { db, slot } = unsafe { &*watched.cast::<Watched>() };
    let pages = pages_written(db.as_ptr());
    // A reader that panics has read nothing; a panic must not reach SQLite.
    let begun = catch_unwind(AssertUnwindSafe(|| slot.commits().begin(pages)));
    if begun.is_err() {
        slot.commits().last = Some(LastCommit { before: None, pages });
    }
    0
}

/// Called by SQLite when the connection is closed, or when somebody registers another function of
/// that name.
unsafe extern "C" fn on_close(watched: *mut c_void) {
    // SAFETY: the data that `on_open` gave to SQLite, which calls this once.
    let Watched { db, slot } = *unsafe { Box::from_raw(watched.cast::<Watched>()) };
    // SAFETY: SQLite destroys functions while the connection's memory is still there.
    unsafe { ffi::sqlite3_commit_hook(db.as_ptr(), None, std::ptr::null_mut()) };
    slot.set(None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::RunQueryDsl;

    fn opened(dir: &tempfile::TempDir) -> Opened {
        let path = dir.path().join("db");
        let mut opened = Opened::establish(path.to_str().unwrap()).unwrap();
        let schema = "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x)";
        opened.connection.batch_execute(schema).unwrap();
        opened
    }

    #[test]
    fn the_transaction_is_seen_as_sqlite_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { mut connection, native } = opened(&dir);
        let state = || (native.is_autocommit(), native.is_writing());
        assert_eq!(state(), (true, false));
        connection.batch_execute("BEGIN; SELECT 1 FROM t").unwrap();
        assert_eq!(state(), (false, false));
        connection.batch_execute("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(state(), (false, true));
        connection.batch_execute("CREATE TEMP TABLE own (x); COMMIT").unwrap();
        assert_eq!(state(), (true, false));
        connection.batch_execute("BEGIN; INSERT INTO own VALUES (1)").unwrap();
        assert_eq!(state(), (false, false), "a temporary table is not the database");
    }

    #[test]
    fn pages_are_counted_only_where_something_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { mut connection, native } = opened(&dir);
        let mut writes = |sql: &str| {
            let before = native.pages_written();
            connection.batch_execute(sql).unwrap();
            native.pages_written() != before
        };
        assert!(writes("INSERT INTO t VALUES (1)"));
        assert!(!writes("UPDATE t SET x = x"), "the values were there already");
        assert!(!writes("DELETE FROM t WHERE x = 2"));
        assert!(!writes("CREATE TABLE IF NOT EXISTS t (x)"));
        assert!(!writes("BEGIN IMMEDIATE; COMMIT"));
        assert!(!writes("BEGIN; INSERT INTO t VALUES (2)"), "nothing is committed yet");
        assert!(!writes("ROLLBACK"));
        assert!(!writes("SELECT * FROM t"));
        assert!(!writes("CREATE TEMP TABLE own (x); INSERT INTO own VALUES (1)"));
        assert!(!writes("PRAGMA wal_checkpoint(PASSIVE)"));
        assert!(writes("CREATE TABLE u (x)"));
        assert!(writes("SELECT diesel_manage_updated_at('u')"), "a function that writes");
        assert!(writes("PRAGMA user_version = 7"));
        assert!(writes("UPDATE t SET x = 3"));
        assert!(writes("VACUUM"));
    }

    #[test]
    fn a_commit_after_the_cache_has_spilled_is_counted_too() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { mut connection, native } = opened(&dir);
        connection.batch_execute("PRAGMA cache_size = 2; BEGIN").unwrap();
        let before = native.pages_written();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                    INSERT INTO t SELECT zeroblob(3000) FROM n";
        connection.batch_execute(fill).unwrap();
        let spilled = native.pages_written();
        assert_ne!(before, spilled);
        connection.batch_execute("COMMIT").unwrap();
        assert_ne!(spilled, native.pages_written());
    }

    #[test]
    fn a_closed_connection_is_asked_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { mut connection, native } = opened(&dir);
        connection.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
        assert!(native.is_writing());
        drop(connection);
        assert!(native.is_autocommit() && !native.is_writing() && native.pages_written() == 0);
        assert!(native.slot.db.lock().unwrap().is_none());
        assert_eq!(Arc::strong_count(&native.slot), 1, "SQLite has given its reference back");
    }

    #[test]
    fn only_the_announced_connection_is_watched() {
        let mut other = SqliteConnection::establish(":memory:").unwrap();
        let sql = format!("SELECT {MARKER_FUNCTION}()");
        assert!(diesel::sql_query(&sql).execute(&mut other).is_err(), "no such function");
        let missing = Opened::establish("/no/such/directory/db");
        assert!(missing.is_err());
        let mut next = SqliteConnection::establish(":memory:").unwrap();
        assert!(diesel::sql_query(&sql).execute(&mut next).is_err(), "nothing was left announced");
        let mut opened = Opened::establish(":memory:").unwrap();
        assert!(diesel::sql_query(&sql).execute(&mut opened.connection).is_ok());
    }

    #[test]
    fn a_connection_that_is_opened_on_the_way_does_not_take_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        let log = dir.path().join("log").to_str().unwrap().to_owned();
        let slot = Arc::<Slot>::default();
        register().unwrap();
        let _announced = Announced::new(path.to_str().unwrap(), &slot);
        let _other = SqliteConnection::establish(&log).unwrap();
        assert!(slot.is_empty());
        let mut own = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        assert!(!slot.is_empty() && has_marker(&mut own));
    }

    #[test]
    fn a_position_is_read_under_the_lock_of_each_commit() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { mut connection, native } = opened(&dir);
        let txid = Arc::new(std::sync::atomic::AtomicU64::new(1));
        let at = Arc::clone(&txid);
        let position = |txid: u64| format!("{txid:016x}/{txid:016x}").parse::<Position>().unwrap();
        native.read_positions_by(Box::new(move || {
            Some(position(at.load(std::sync::atomic::Ordering::Relaxed)))
        }));
        let mut commit = |sql: &str| {
            native.watch_commits();
            connection.batch_execute(sql).unwrap();
            CommitExpectation::from(native.committed())
        };
        assert_eq!(commit("SELECT * FROM t"), CommitExpectation::Unchanged);
        assert_eq!(commit("BEGIN IMMEDIATE; COMMIT"), CommitExpectation::Unchanged);
        assert_eq!(
            commit("INSERT INTO t VALUES (1)"),
            CommitExpectation::AdvancesFrom(position(1))
        );
        let two = "INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)";
        assert_eq!(commit(two), CommitExpectation::Dropped, "the position did not move in between");
        assert_eq!(
            commit("BEGIN; INSERT INTO t VALUES (4); ROLLBACK"),
            CommitExpectation::Unchanged
        );
        txid.store(2, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(commit("DELETE FROM t"), CommitExpectation::AdvancesFrom(position(2)));
    }
}
