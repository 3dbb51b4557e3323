//! The executor's connection, and what is known of its state.

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::error::denied;
use super::native::{Native, Opened};
use super::outcomes::{Outcomes, StoredOutcome};
use super::query::BoundQuery;
use super::rows;
use super::sql::{SqlStatement, Verb, statements, tokens};
use crate::executor::{CommitExpectation, Done};
use crate::wire::{
    Command, Output, Repeated, RequestId, RowSet, ServerError, SessionCounters, Settings, Statement, Value,
};

/// A connection and what is known of its state.
pub(super) struct Ready {
    pub(super) connection: SqliteConnection,
    pub(super) native: Native,
    pub(super) settings: Settings,
    /// `total_changes()` after the last work.
    pub(super) total_changes: i64,
    /// `total_changes()` at BEGIN, as long as its growth tells whether the transaction wrote.
    pub(super) at_begin: Option<i64>,
    /// The work under way may insert or not, which only `last_insert_rowid()` tells: it was set to [`NO_ROWID`] before.
    pub(super) marked: bool,
    /// What `changes()` has to say instead of what it says, as long as it and `total_changes()` say these.
    pub(super) instead: Option<([i64; 2], i64)>,
    /// The open transaction has changed what belongs to the connection: nobody else may have it afterwards.
    pub(super) traced: bool,
}

impl Ready {
    pub(super) fn new(Opened { mut connection, native }: Opened) -> QueryResult<Self> {
        let settings = read_settings(&mut connection)?;
        Ok(Self {
            connection,
            native,
            settings,
            total_changes: 0,
            at_begin: None,
            marked: false,
            instead: None,
            traced: false,
        })
    }

    pub(super) fn apply(&mut self, wanted: &Settings) -> QueryResult<()> {
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

    pub(super) fn pragma(&mut self, name: &str, on: bool) -> QueryResult<()> {
        self.connection.batch_execute(&format!("PRAGMA {name} = {}", if on { "ON" } else { "OFF" }))
    }

    /// Sets `last_insert_rowid()` to what no insert gives, where the work makes that necessary.
    pub(super) fn mark_rowid(&mut self, work: &Command) -> Result<(), ServerError> {
        if !may_insert(work) {
            return Ok(());
        }
        let mark = format!("INSERT OR REPLACE INTO temp.litefs_rowid (rowid, x) VALUES ({NO_ROWID}, 0)");
        if self.connection.batch_execute(&mark).is_err() {
            let create = "CREATE TEMP TABLE IF NOT EXISTS litefs_rowid (x)";
            self.connection.batch_execute(&format!("{create}; {mark}")).map_err(super::from_diesel)?;
        }
        self.total_changes = self.read_total_changes()?;
        self.marked = true;
        Ok(())
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        !self.native.is_autocommit()
    }

    /// Keeps what the open transaction comes to.
    pub(super) fn keep(
        &mut self,
        outcomes: &mut Outcomes,
        id: RequestId,
        done: &Done,
    ) -> Result<(), ServerError> {
        let kept = StoredOutcome::Applied(done.answer.clone(), done.effects);
        let noted = self.note(|connection| outcomes.keep(connection, id, &kept))?;
        noted.map(drop).ok_or(ServerError::Fenced)
    }

    /// Writes to the table of outcomes; what that adds to `total_changes()` is nobody's effect.
    pub(super) fn note(
        &mut self,
        write: impl FnOnce(&mut SqliteConnection) -> QueryResult<Option<i64>>,
    ) -> Result<Option<i64>, ServerError> {
        let added = write(&mut self.connection).map_err(super::from_diesel)?;
        self.total_changes += added.unwrap_or(0);
        Ok(added)
    }

    /// Whether a script could meet a constraint that SQLite checks at the end of a transaction: its statements would
    /// then not be checked one by one.
    pub(super) fn checks_at_commit(&mut self, work: &Command) -> QueryResult<bool> {
        if !has_several(work) { Ok(false) } else { self.has_deferred_keys() }
    }

    /// What failing work has added to `total_changes()` before it was undone is nobody's effect.
    pub(super) fn forget_changes(&mut self) -> Result<(), ServerError> {
        self.marked = false;
        self.total_changes = self.read_total_changes()?;
        Ok(())
    }

    /// Runs work in the open transaction. What fails and leaves nothing is an error, and so is what has ended the
    /// transaction; what fails and leaves a part is an answer.
    pub(super) fn part_or_all(&mut self, work: &Command, max_rows: usize) -> Result<Done, ServerError> {
        let mut before = self.total_changes;
        let result = match work {
            Command::Execute(statement) => self.execute(statement),
            Command::Insert(rows) => self.insert(rows, &mut before),
            Command::Query(statement) => return self.query(statement, max_rows),
            Command::Batch { statements, rows } => return self.batch(statements, *rows, max_rows),
            Command::Script(sql) => self.script(sql, &statements(sql)),
        };
        if result.is_err() && !self.is_in_transaction() {
            return result;
        }
        if has_several(work) { self.failed(result) } else { self.with_a_part(result, before) }
    }

    /// A statement that failed has left a part behind if `total_changes()` has grown since `before`: `OR FAIL`,
    /// `RAISE(FAIL)`.
    pub(super) fn with_a_part(
        &mut self,
        result: Result<Done, ServerError>,
        before: i64,
    ) -> Result<Done, ServerError> {
        if !matches!(result, Err(ServerError::Database(_))) {
            return result;
        }
        if self.read_total_changes()? == before { result } else { self.failed(result) }
    }

    pub(super) fn read_total_changes(&mut self) -> Result<i64, ServerError> {
        let [_, _, total] = session_functions(&mut self.connection).map_err(super::from_diesel)?;
        Ok(total)
    }

    /// A failure after which something is applied, as an answer.
    pub(super) fn failed(&mut self, result: Result<Done, ServerError>) -> Result<Done, ServerError> {
        match result {
            Err(ServerError::Database(error)) => self.done(Output::Failed(error), None),
            result => result,
        }
    }

    pub(super) fn execute(&mut self, statement: &Statement) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let count = self.count(&statement.sql, &statement.params, statement.cacheable)?;
        self.done(Output::Count(count), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    pub(super) fn query(&mut self, statement: &Statement, max_rows: usize) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let rows = self.rows(&statement.sql, &statement.params, statement.cacheable, max_rows)?;
        self.done(Output::Rows(rows), Some(before).filter(|_| changes_rows(&statement.sql)))
    }

    /// In a transaction of its own, so that a set of rows that is too large undoes the change behind it.
    pub(super) fn query_alone(
        &mut self,
        statement: &Statement,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        // VACUUM and some PRAGMAs return rows but cannot run inside a transaction.
        if !changes_rows(&statement.sql) {
            return self.query(statement, max_rows);
        }
        self.atomically("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", |ready| ready.query(statement, max_rows))
    }

    /// Runs `work` between `begin` and `end`, or undoes it.
    pub(super) fn atomically(
        &mut self,
        begin: &str,
        end: &str,
        undo: &str,
        work: impl FnOnce(&mut Self) -> Result<Done, ServerError>,
    ) -> Result<Done, ServerError> {
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
    pub(super) fn batch(
        &mut self,
        statements: &[Repeated],
        rows: bool,
        max_rows: usize,
    ) -> Result<Done, ServerError> {
        let before = self.total_changes;
        let (mut counts, mut all) = (Vec::new(), RowSet::default());
        let mut left = max_rows;
        for repeated in statements {
            if !rows {
                self.repeat(repeated, &mut counts)?;
                continue;
            }
            for params in repeated.runs() {
                let mut more = self.rows(&repeated.sql, params, repeated.cacheable, left)?;
                left = left.saturating_sub(more.size());
                if all.columns.is_empty() {
                    all.columns = more.columns;
                }
                all.values.append(&mut more.values);
            }
        }
        let answer = if rows { Output::Rows(all) } else { Output::Counts(counts) };
        let counted = statements.iter().all(|statement| changes_rows(&statement.sql));
        self.done(answer, Some(before).filter(|_| counted))
    }

    pub(super) fn count(&mut self, sql: &str, params: &[Value], cacheable: bool) -> Result<u64, ServerError> {
        let query = BoundQuery::new(sql, params, cacheable);
        let count = self.connection.execute_returning_count(&query).map_err(super::from_diesel)?;
        Ok(count as u64)
    }

    pub(super) fn rows(
        &mut self,
        sql: &str,
        params: &[Value],
        cacheable: bool,
        max_rows: usize,
    ) -> Result<RowSet, ServerError> {
        let query = BoundQuery::new(sql, params, cacheable);
        let rows = self.connection.load(query).map_err(super::from_diesel)?;
        rows::collect(rows, max_rows)
    }

    pub(super) fn script(&mut self, sql: &str, all: &[SqlStatement<'_>]) -> Result<Done, ServerError> {
        let before = self.total_changes;
        self.connection.batch_execute(sql).map_err(super::from_diesel)?;
        if all.iter().any(|s| s.verb() == Verb::Begin) && self.connection.batch_execute("ROLLBACK").is_ok() {
            return Err(denied("the script leaves a transaction open; it was rolled back".into()));
        }
        let only_rows = all.iter().all(|s| matches!(s.verb(), Verb::Read | Verb::Change));
        self.done(Output::Done, Some(before).filter(|_| only_rows))
    }

    /// `before`: `total_changes()` before the work, where its growth says whether anything was written.
    pub(super) fn done(&mut self, answer: Output, before: Option<i64>) -> Result<Done, ServerError> {
        let [last_insert_rowid, changes, total] =
            session_functions(&mut self.connection).map_err(super::from_diesel)?;
        self.instead = self.instead.filter(|(said, _)| *said == [changes, total]);
        let changes = self.instead.map_or(changes, |(_, changes)| changes);
        let wrote =
            if before == Some(total) { CommitExpectation::Unchanged } else { CommitExpectation::Advances };
        let marked = std::mem::take(&mut self.marked);
        let inserted = if marked { last_insert_rowid != NO_ROWID } else { changes > 0 };
        let effects = SessionCounters {
            last_insert_rowid,
            changes,
            total_changes: total - self.total_changes,
            inserted,
        };
        self.total_changes = total;
        Ok(Done { answer, effects, wrote })
    }
}

pub(super) fn has_several(work: &Command) -> bool {
    matches!(work, Command::Script(sql) if statements(sql).len() > 1)
}

/// No table has this rowid: SQLite gives out none below 1 by itself.
const NO_ROWID: i64 = i64::MIN + 1;

/// Whether only `last_insert_rowid()` tells if the work has inserted a row at last.
fn may_insert(work: &Command) -> bool {
    let inserts = |sql: &str| statements(sql).iter().any(|statement| statement.inserts());
    let chooses = |sql: &str| tokens(sql).any(|token| token.is("CONFLICT") || token.is("OR"));
    match work {
        Command::Execute(statement) | Command::Query(statement) => {
            chooses(&statement.sql) && inserts(&statement.sql)
        }
        Command::Insert(rows) => chooses(&rows.sql) && inserts(&rows.sql),
        Command::Script(sql) => inserts(sql),
        Command::Batch { statements, .. } => statements.iter().any(|repeated| inserts(&repeated.sql)),
    }
}

/// Whether `total_changes()` counts what the statement does.
pub(super) fn changes_rows(sql: &str) -> bool {
    begins_with_change(sql)
        || statements(sql).first().is_some_and(|statement| statement.verb() == Verb::Change)
}

/// By far the most common beginnings of what changes rows, which need no look at the rest.
pub(super) fn begins_with_change(sql: &str) -> bool {
    let begins = |verb: &str| sql.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    ["INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| begins(verb))
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
pub(super) fn integers<const N: usize>(
    connection: &mut SqliteConnection,
    sql: &str,
) -> QueryResult<[i64; N]> {
    integers_of(connection, BoundQuery::new(sql, &[], true))
}

/// The first `N` columns of the first row of a query with parameters.
pub(super) fn integers_of<const N: usize>(
    connection: &mut SqliteConnection,
    query: BoundQuery<'_>,
) -> QueryResult<[i64; N]> {
    let mut rows = connection.load(query)?;
    let row = rows.next().ok_or(diesel::result::Error::NotFound)??;
    Ok(std::array::from_fn(|index| match diesel::row::Row::get(&row, index).map(|f| rows::value(&f)) {
        Some(Value::Integer(integer)) => integer,
        _ => 0,
    }))
}
