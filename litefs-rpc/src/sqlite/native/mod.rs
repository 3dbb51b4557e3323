//! A connection and what SQLite itself knows of it: whether a transaction is open, whether it
//! writes, and whether pages were written. Diesel gives no access to that.

mod commit_watch;
mod handle;

use std::sync::Arc;

use diesel::connection::{
    Connection, InstrumentationEvent, SimpleConnection, get_default_instrumentation,
};
use diesel::result::{ConnectionError, ConnectionResult};
use diesel::sqlite::SqliteConnection;
use litefs_core::CommitExpectation;

pub use self::commit_watch::ReadPosition;
pub(super) use self::handle::MARKER_FUNCTION;
use self::handle::{Announced, Handle, register};

/// A connection that was just opened, and what SQLite knows of it.
#[expect(missing_debug_implementations, reason = "Diesel's connection has none")]
pub struct Opened {
    /// The connection, as Diesel knows it.
    pub connection: SqliteConnection,
    /// The same, as SQLite knows it.
    pub native: Native,
}

/// Opens the connection of an executor or a checkpointer. Called again after the connection had to
/// be closed. Blocks.
pub type Open = Box<dyn FnMut() -> ConnectionResult<Opened> + Send>;

impl Opened {
    /// Opens a connection, as [`SqliteConnection::establish`] does. Blocks.
    ///
    /// # Errors
    /// Those of SQLite. [`ConnectionError::BadConnection`] if SQLite is not in serialized mode
    /// (`SQLITE_THREADSAFE=1`, its default), or has not called the automatic extension: without it
    /// commits could not be confirmed.
    pub fn establish(url: &str) -> ConnectionResult<Self> {
        if !register() {
            return Err(not_announced());
        }
        let handle = Arc::<Handle>::default();
        let announced = Announced::new(url, &handle);
        let mut connection = SqliteConnection::establish(url)?;
        drop(announced);
        if handle.is_not_serialized() {
            return Err(ConnectionError::BadConnection(
                "SQLite is not in serialized mode: build it with SQLITE_THREADSAFE=1, as with the \
                 feature `bundled` of libsqlite3-sys"
                    .into(),
            ));
        }
        if handle.is_closed() || !has_marker(&mut connection) {
            return Err(not_announced());
        }
        Ok(Self { connection, native: Native { handle } })
    }
}

fn not_announced() -> ConnectionError {
    ConnectionError::BadConnection(
        "SQLite did not call LiteFS for Rust's automatic extension for this connection: \
         sqlite3_reset_auto_extension() or an extension that opens connections has removed it"
            .into(),
    )
}

/// Whether the connection has the marker function. Another connection, opened by an instrumentation
/// meanwhile, may have taken the announcement.
fn has_marker(connection: &mut SqliteConnection) -> bool {
    connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let asked = connection.batch_execute(&format!("SELECT {MARKER_FUNCTION}()"));
    connection.set_instrumentation(get_default_instrumentation());
    // Any other error is of the file, which SQLite reads before it looks for functions.
    !asked.is_err_and(|error| error.to_string().starts_with("no such function"))
}

/// SQLite's own view of one connection. After the connection was closed every question has the
/// answer of a connection that has done nothing.
///
/// Keep it with its connection. A question from another thread waits until the connection is not in
/// use.
#[derive(Debug)]
pub struct Native {
    handle: Arc<Handle>,
}

impl Native {
    /// Whether no transaction is open (<https://www.sqlite.org/c3ref/get_autocommit.html>). What
    /// was written is committed only then.
    #[must_use]
    pub fn is_autocommit(&self) -> bool {
        self.handle.is_autocommit()
    }

    /// Whether the open transaction has the write lock of the main database
    /// (<https://www.sqlite.org/c3ref/txn_state.html>).
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.handle.is_writing()
    }

    /// What can end the connection's transaction from another thread.
    #[must_use]
    pub fn ender(&self) -> TransactionEnder {
        TransactionEnder { handle: Arc::clone(&self.handle) }
    }

    /// A counter that grows with each page that this connection writes to a file: in WAL mode with
    /// each frame, those of COMMIT and those that a transaction writes earlier because the cache is
    /// full. Temporary and attached databases count too. The counter wraps, so compare for equality
    /// (`SQLITE_DBSTATUS_CACHE_WRITE`, <https://www.sqlite.org/c3ref/c_dbstatus_options.html>).
    #[must_use]
    pub fn pages_written(&self) -> i32 {
        self.handle.pages_written()
    }

    /// Sets how positions are read when a commit begins. Without it they are not known.
    pub fn read_positions_by(&self, read: ReadPosition) {
        self.handle.commits.read_by(read);
    }

    /// Forgets the commits so far: [`committed`](Self::committed) answers for those after this.
    pub fn watch_commits(&self) {
        self.handle.commits.reset();
    }

    /// Runs `work` while SQLite rolls back whatever the connection would commit. Also returns
    /// whether there was such a commit.
    pub(super) fn refusing_commits<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.handle.commits.refusing(work)
    }

    /// What the commits since [`watch_commits`](Self::watch_commits) must have done to LiteFS's
    /// position: nothing, if there were none, or if they have written no page of a file. An UPDATE
    /// to the values that are there already writes none.
    #[must_use]
    pub fn committed(&self) -> CommitExpectation {
        self.handle.commits.expectation(self.pages_written())
    }
}

/// Ends the transaction of a connection that another thread has.
#[derive(Debug)]
pub struct TransactionEnder {
    handle: Arc<Handle>,
}

impl TransactionEnder {
    /// Rolls back the open transaction, if there is one. Blocks while a statement of the connection
    /// runs.
    pub fn roll_back(&self) {
        self.handle.roll_back();
    }
}

#[cfg(test)]
mod tests {
    use diesel::RunQueryDsl;
    use litefs_core::Position;

    use super::handle::MARKER_FUNCTION;
    use super::*;

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
        assert!(native.handle.is_closed());
        assert_eq!(Arc::strong_count(&native.handle), 1, "SQLite has returned its reference");
    }

    /// A question takes a lock and SQLite's mutex, and a close takes them in the other order.
    #[test]
    fn a_question_and_a_close_do_not_block_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (all_closed, closed) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..500 {
                let Opened { mut connection, native } = opened(&dir);
                let asking = Arc::new(std::sync::Barrier::new(2));
                let asks = Arc::clone(&asking);
                let asker = std::thread::spawn(move || {
                    asks.wait();
                    while !native.handle.is_closed() {
                        assert!(!native.is_writing());
                    }
                });
                asking.wait();
                connection.batch_execute("SELECT * FROM t").unwrap();
                drop(connection);
                asker.join().unwrap();
            }
            all_closed.send(()).unwrap();
        });
        assert!(closed.recv_timeout(std::time::Duration::from_secs(60)).is_ok());
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
        let handle = Arc::<Handle>::default();
        assert!(register());
        let _announced = Announced::new(path.to_str().unwrap(), &handle);
        let _other = SqliteConnection::establish(&log).unwrap();
        assert!(handle.is_closed());
        let mut own = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        assert!(!handle.is_closed() && has_marker(&mut own));
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
            native.committed()
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
