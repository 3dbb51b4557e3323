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
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Once, PoisonError};

use diesel::connection::Connection;
use diesel::result::ConnectionResult;
use diesel::sqlite::SqliteConnection;
use libsqlite3_sys as ffi;

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
    /// What SQLite says.
    pub fn establish(url: &str) -> ConnectionResult<Self> {
        register();
        let slot = Arc::<Slot>::default();
        ANNOUNCED.set(Some(Arc::clone(&slot)));
        let connection = SqliteConnection::establish(url);
        ANNOUNCED.set(None);
        Ok(Self { connection: connection?, native: Native { slot } })
    }
}

/// Opens the connection of an executor or a checkpointer. Called again after the connection had to
/// be closed. Blocks.
pub type Open = Box<dyn FnMut() -> ConnectionResult<Opened> + Send>;

/// SQLite's own view of one connection. After the connection was closed every question has the
/// answer of a connection that has done nothing.
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
        self.slot
            .ask(false, |db| unsafe { ffi::sqlite3_txn_state(db, c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE })
    }

    /// A counter that grows with each page that this connection writes to a file: in WAL mode with
    /// each frame, those of COMMIT and those that a transaction writes earlier because the cache is
    /// full. A commit that leaves it as it is has changed nothing that could be replicated, such as
    /// an UPDATE to the values that are there already. Temporary and attached databases count too.
    /// The counter wraps, so compare for equality (`SQLITE_DBSTATUS_CACHE_WRITE`,
    /// <https://www.sqlite.org/c3ref/c_dbstatus_options.html>).
    #[must_use]
    pub fn pages_written(&self) -> i32 {
        self.slot.ask(0, |db| {
            let (mut current, mut highest) = (0, 0);
            // SAFETY: as above; both outputs are integers of this frame.
            unsafe {
                ffi::sqlite3_db_status(db, ffi::SQLITE_DBSTATUS_CACHE_WRITE, &mut current, &mut highest, 0)
            };
            current
        })
    }
}

/// Where the pointer of one connection is kept while it is open.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Db>>);

#[derive(Debug)]
struct Db(NonNull<ffi::sqlite3>);

// SAFETY: SQLite's connections may be used from any thread in its default threading mode, and the
// slot's lock lets one thread at a time use the pointer.
unsafe impl Send for Db {}

impl Slot {
    /// With the lock held, so that the connection cannot be closed meanwhile.
    fn ask<T>(&self, closed: T, question: impl FnOnce(*mut ffi::sqlite3) -> T) -> T {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(db) => question(db.0.as_ptr()),
            None => closed,
        }
    }

    fn set(&self, db: Option<Db>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = db;
    }
}

thread_local! {
    /// The slot of the connection that this thread is opening.
    static ANNOUNCED: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the callback has the signature that SQLite asks for, and lives as long as the
        // process.
        unsafe { ffi::sqlite3_auto_extension(Some(on_open)) };
    });
}

/// Called by SQLite for each connection of the process that is opened.
unsafe extern "C" fn on_open(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let announced = ANNOUNCED.try_with(|slot| slot.borrow_mut().take()).ok().flatten();
    let (Some(slot), Some(open)) = (announced, NonNull::new(db)) else { return ffi::SQLITE_OK };
    slot.set(Some(Db(open)));
    // SAFETY: `db` is the connection that SQLite is opening. The function's data is a counted
    // reference, which the destructor gives back; SQLite calls the destructor if this call fails,
    // too.
    unsafe {
        ffi::sqlite3_create_function_v2(
            db,
            MARKER_FUNCTION_C.as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            Arc::into_raw(slot).cast_mut().cast::<c_void>(),
            Some(return_null),
            None,
            None,
            Some(on_close),
        )
    }
}

/// A function that sets no result returns NULL.
unsafe extern "C" fn return_null(_: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {}

/// Called by SQLite when the connection is closed, or when the application registers another function of
/// that name.
unsafe extern "C" fn on_close(slot: *mut c_void) {
    // SAFETY: the reference that `on_open` gave to SQLite, which calls this once.
    let slot = unsafe { Arc::from_raw(slot.cast_const().cast::<Slot>()) };
    slot.set(None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::RunQueryDsl;
    use diesel::connection::SimpleConnection;

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
        assert!(native.slot.0.lock().unwrap().is_none());
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
}
