use std::collections::HashSet;

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::guard::{Place, refused_from_afar};
use super::query::BoundQuery;
use super::rows;
use super::sql::{SqlStatement, Verb, statements};
use crate::executor::{Done, Executor, Wrote};
use crate::wire::{
    Answer, BeginMode, DatabaseError, DatabaseErrorKind, Effects, Refusal, RowSet, Settings, Statement,
    Value, Work,
};

/// Opens the connection that forwarded statements run on. Called again after a script has touched the connection's
/// own state. Blocks.
pub type Open = Box<dyn FnMut() -> diesel::ConnectionResult<SqliteConnection> + Send>;

/// Runs forwarded work on one [`SqliteConnection`].
pub struct SqliteExecutor {
    open: Open,
    connection: Option<Ready>,
    max_rows: usize,
    /// Statements that come again and again and were found to be harmless on their own.
    allowed: HashSet<String>,
}

/// How many are kept. Only an application that builds its statements at run time has more; then it starts anew.
const MAX_ALLOWED: usize = 1_024;

/// A connection and what is known of its state.
struct Ready {
    connection: SqliteConnection,
    settings: Settings,
    /// `total_changes()` after the last work.
    total_changes: i64,
    /// `total_changes()` at BEGIN, as long as its growth tells whether the transaction wrote.
    at_begin: Option<i64>,
}

impl SqliteExecutor {
    /// `open` is called at the first work, not before: the database may not exist yet. `max_rows` is the limit on
    /// the size of returned rows, in bytes.
    #[must_use]
    pub fn new(open: Open, max_rows: usize) -> Self {
        Self { open, connection: None, max_rows, allowed: HashSet::new() }
    }

    fn ready(&mut self, settings: &Settings) -> Result<&mut Ready, Refusal> {
        let ready = match self.connection.take() {
            Some(ready) => ready,
            None => {
                let connection = (self.open)().map_err(|error| other(error.to_string()))?;
                Ready::new(connection).map_err(super::from_diesel)?
            }
        };
        let ready = self.connection.insert(ready);
        ready.apply(settings).map_err(super::from_diesel)?;
        Ok(ready)
    }

    fn check_alone(&mut self, work: &Work) -> Result<(), Refusal> {
        let (Work::Execute(statement) | Work::Query(statement)) = work else {
            let place = if matches!(work, Work::Script(_)) { Place::Script } else { Place::Alone };
            return check(work, place);
        };
        if self.allowed.contains(&statement.sql) {
            return Ok(());
        }
        check(work, Place::Alone)?;
        if statement.cacheable {
            if self.allowed.len() >= MAX_ALLOWED {
                self.allowed.clear();
            }
            self.allowed.insert(statement.sql.clone());
        }
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Ready, Refusal> {
        self.connection.as_mut().ok_or_else(|| other("no transaction is active".into()))
    }

    fn alone(&mut self, settings: &Settings, work: &Work) -> Result<Done, Refusal> {
        let max_rows = self.max_rows;
        let ready = self.ready(settings)?;
        match work {
            Work::Execute(statement) => ready.execute(statement),
            Work::Query(statement) => ready.query_alone(statement, max_rows),
            Work::Script(sql) => {
                let all = statements(sql);
                let result = ready.script(sql, &all);
                if all.iter().any(leaves_a_trace) || result.is_err() {
                    self.connection = None;
                }
                result
            }
            Work::Batch { statements, rows } => {
                ready.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", |ready| {
                    ready.batch(statements, *rows, max_rows)
                })
            }
        }
    }
}

/// Why work from another node must not run, if it must not.
fn check(work: &Work, place: Place) -> Result<(), Refusal> {
    work.texts().find_map(|sql| refused_from_afar(sql, place)).map_or(Ok(()), |what| Err(denied(what)))
}

/// Statements after which the connection is no longer as the next request expects it.
fn leaves_a_trace(statement: &SqlStatement<'_>) -> bool {
    !matches!(statement.verb(), Verb::Read | Verb::Change | Verb::Schema)
}

fn other(message: String) -> Refusal {
    Refusal::Database(DatabaseError { kind: DatabaseErrorKind::Other, message })
}

fn denied(what: String) -> Refusal {
    Refusal::Denied { what }
}

impl Executor for SqliteExecutor {
    fn write(&mut self, settings: &Settings, work: &Work) -> Result<Done, Refusal> {
        self.check_alone(work)?;
        self.alone(settings, work)
    }

    fn begin(&mut self, settings: &Settings, mode: BeginMode) -> Result<(), Refusal> {
        let begin = match mode {
            BeginMode::Immediate => "BEGIN IMMEDIATE",
            BeginMode::Exclusive => "BEGIN EXCLUSIVE",
        };
        let ready = self.ready(settings)?;
        ready.connection.batch_execute(begin).map_err(super::from_diesel)?;
        ready.at_begin = Some(ready.total_changes);
        // A transaction of its own kind: cleared by SQLite at each COMMIT, so it is set inside.
        let defer = settings.defer_foreign_keys;
        ready.pragma("defer_foreign_keys", defer).map_err(super::from_diesel)
    }

    fn step(&mut self, work: &Work) -> Result<Done, Refusal> {
        check(work, Place::Transaction)?;
        let max_rows = self.max_rows;
        let ready = self.current()?;
        let counted = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Read | Verb::Change | Verb::Savepoint);
        if !work.texts().all(|sql| statements(sql).iter().all(counted)) {
            ready.at_begin = None;
        }
        match work {
            Work::Execute(statement) => ready.execute(statement),
            Work::Query(statement) => ready.query(statement, max_rows),
            Work::Script(sql) => ready.script(sql, &statements(sql)),
            Work::Batch { statements, rows } => ready.atomically(
                "SAVEPOINT litefs_batch",
                "RELEASE litefs_batch",
                "ROLLBACK TO litefs_batch; RELEASE litefs_batch",
                |ready| ready.batch(statements, *rows, max_rows),
            ),
        }
    }

    fn in_transaction(&mut self) -> bool {
        let Some(ready) = &mut self.connection else { return false };
        // SQLite refuses BEGIN inside a transaction; where it accepts it there was none.
        match ready.connection.batch_execute("BEGIN") {
            Ok(()) => {
                let _ = ready.connection.batch_execute("ROLLBACK");
                false
            }
            Err(_) => true,
        }
    }

    fn commit(&mut self) -> Result<Done, Refusal> {
        let ready = self.current()?;
        let before = ready.at_begin;
        ready.connection.batch_execute("COMMIT").map_err(super::from_diesel)?;
        ready.done(Answer::Done, before)
    }

    fn rollback(&mut self) {
        // What cannot be rolled back is thrown away: SQLite rolls back when the connection closes.
        if let Some(mut ready) = self.connection.take()
            && ready.connection.batch_execute("ROLLBACK").is_ok()
        {
            self.connection = Some(ready);
        }
    }
}

impl Ready {
    fn new(mut connection: SqliteConnection) -> QueryResult<Self> {
        let settings = read_settings(&mut connection)?;
        Ok(Self { connection, settings, total_changes: 0, at_begin: None })
    }

    fn apply(&mut self, wanted: &Settings) -> QueryResult<()> {
        let have = self.settings;
        for (name, want, is) in [
            ("foreign_keys", wanted.foreign_keys, have.foreign_keys),
            ("recursive_triggers", wanted.recursive_triggers, have.recursive_triggers),
            ("ignore_check_constraints", wanted.ignore_check_constraints, have.ignore_check_constraints),
            ("legacy_alter_table", wanted.legacy_alter_table, have.legacy_alter_table),
        ] {
            if want != is {
                self.pragma(name, want)?;
            }
        }
        self.settings = *wanted;
        Ok(())
    }

    fn pragma(&mut self, name: &str, on: bool) -> QueryResult<()> {
        self.connection.batch_execute(&format!("PRAGMA {name} = {}", if on { "ON" } else { "OFF" }))
    }

    fn execute(&mut self, statement: &Statement) -> Result<Done, Refusal> {
        let before = self.total_changes;
        let count = self.count(statement)?;
        self.done(Answer::Count(count), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    fn query(&mut self, statement: &Statement, max_rows: usize) -> Result<Done, Refusal> {
        let before = self.total_changes;
        let rows = self.rows(statement, max_rows)?;
        self.done(Answer::Rows(rows), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    /// In a transaction of its own, so that a set of rows that is too large undoes the change behind it.
    fn query_alone(&mut self, statement: &Statement, max_rows: usize) -> Result<Done, Refusal> {
        // VACUUM and some PRAGMAs return rows but cannot run inside a transaction.
        if !changes_rows(&statement.sql) {
            return self.query(statement, max_rows);
        }
        self.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", |ready| ready.query(statement, max_rows))
    }

    /// Runs `work` between `begin` and `end`, or undoes it.
    fn atomically(
        &mut self,
        begin: &str,
        end: &str,
        undo: &str,
        work: impl FnOnce(&mut Self) -> Result<Done, Refusal>,
    ) -> Result<Done, Refusal> {
        self.connection.batch_execute(begin).map_err(super::from_diesel)?;
        let ended = work(self).and_then(|done| {
            self.connection.batch_execute(end).map_err(super::from_diesel)?;
            Ok(done)
        });
        if ended.is_err() {
            // Fails only where SQLite has rolled back already.
            let _ = self.connection.batch_execute(undo);
        }
        ended
    }

    /// All statements, one after the other. Stops at the first error; the caller undoes what came before.
    fn batch(&mut self, statements: &[Statement], rows: bool, max_rows: usize) -> Result<Done, Refusal> {
        let before = self.total_changes;
        let (mut counts, mut all) = (Vec::new(), RowSet::default());
        let mut left = max_rows;
        for statement in statements {
            if !rows {
                counts.push(self.count(statement)?);
                continue;
            }
            let mut more = self.rows(statement, left)?;
            left = left.saturating_sub(more.size());
            if all.columns.is_empty() {
                all.columns = more.columns;
            }
            all.values.append(&mut more.values);
        }
        let answer = if rows { Answer::Rows(all) } else { Answer::Counts(counts) };
        let counted = statements.iter().all(|statement| changes_rows(&statement.sql));
        self.done(answer, Some(before).filter(|_| counted))
    }

    fn count(&mut self, statement: &Statement) -> Result<u64, Refusal> {
        let query = BoundQuery::new(&statement.sql, &statement.params, statement.cacheable);
        let count = self.connection.execute_returning_count(&query).map_err(super::from_diesel)?;
        Ok(count as u64)
    }

    fn rows(&mut self, statement: &Statement, max_rows: usize) -> Result<RowSet, Refusal> {
        let query = BoundQuery::new(&statement.sql, &statement.params, statement.cacheable);
        let rows = self.connection.load(query).map_err(super::from_diesel)?;
        rows::collect(rows, max_rows)
    }

    fn script(&mut self, sql: &str, all: &[SqlStatement<'_>]) -> Result<Done, Refusal> {
        let before = self.total_changes;
        self.connection.batch_execute(sql).map_err(super::from_diesel)?;
        if all.iter().any(|s| s.verb() == Verb::Begin) && self.connection.batch_execute("ROLLBACK").is_ok() {
            return Err(denied("the script leaves a transaction open; it was rolled back".into()));
        }
        let only_rows = all.iter().all(|s| matches!(s.verb(), Verb::Read | Verb::Change));
        self.done(Answer::Done, Some(before).filter(|_| only_rows))
    }

    /// `before`: `total_changes()` before the work, where its growth says whether anything was written.
    fn done(&mut self, answer: Answer, before: Option<i64>) -> Result<Done, Refusal> {
        let [last_insert_rowid, changes, total] =
            session_functions(&mut self.connection).map_err(super::from_diesel)?;
        let wrote = match before {
            None => Wrote::Perhaps,
            Some(before) if total == before => Wrote::Nothing,
            Some(_) => Wrote::Rows,
        };
        let effects = Effects { last_insert_rowid, changes, total_changes: total - self.total_changes };
        self.total_changes = total;
        Ok(Done { answer, effects, wrote })
    }
}

/// Whether `total_changes()` counts what the statement does.
fn changes_rows(sql: &str) -> bool {
    // By far the most common beginnings need no look at the rest.
    let begins = |verb: &str| sql.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    ["INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| begins(verb))
        || statements(sql).first().is_some_and(|statement| statement.verb() == Verb::Change)
}

/// What `last_insert_rowid()`, `changes()` and `total_changes()` say on a connection, in this order.
///
/// # Errors
/// What SQLite says.
pub fn session_functions(connection: &mut SqliteConnection) -> QueryResult<[i64; 3]> {
    integers(connection, "SELECT last_insert_rowid(), changes(), total_changes()")
}

/// What a connection's own PRAGMAs say; they depend on how SQLite was built and on what its owner has set.
///
/// # Errors
/// What SQLite says.
pub fn read_settings(connection: &mut SqliteConnection) -> QueryResult<Settings> {
    let mut read = |name: &str| -> QueryResult<bool> {
        let [on] = integers(connection, &format!("PRAGMA {name}"))?;
        Ok(on != 0)
    };
    Ok(Settings {
        foreign_keys: read("foreign_keys")?,
        defer_foreign_keys: read("defer_foreign_keys")?,
        recursive_triggers: read("recursive_triggers")?,
        ignore_check_constraints: read("ignore_check_constraints")?,
        legacy_alter_table: read("legacy_alter_table")?,
    })
}

/// The first `N` columns of the first row.
fn integers<const N: usize>(connection: &mut SqliteConnection, sql: &str) -> QueryResult<[i64; N]> {
    let mut rows = connection.load(BoundQuery::new(sql, &[], true))?;
    let row = rows.next().ok_or(diesel::result::Error::NotFound)??;
    Ok(std::array::from_fn(|index| match diesel::row::Row::get(&row, index).map(|f| rows::value(&f)) {
        Some(Value::Integer(integer)) => integer,
        _ => 0,
    }))
}

impl std::fmt::Debug for SqliteExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteExecutor").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}
