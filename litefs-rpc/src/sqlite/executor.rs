use std::collections::HashSet;
use std::time::Duration;

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::guard::{Place, refused_from_afar};
use super::outcomes::{DEFAULT_RETENTION, Kept, Outcomes};
use super::query::BoundQuery;
use super::rows;
use super::sql::{SqlStatement, Verb, statements, tokens};
use crate::executor::{Done, Executor, Wrote};
use crate::wire::{
    Answer, BeginMode, DatabaseError, DatabaseErrorKind, Delivery, Effects, Outcome, Refusal, Request,
    RequestId, RowSet, Settings, Statement, Value, Work,
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
    outcomes: Outcomes,
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
    /// The work under way may insert or not, which only `last_insert_rowid()` tells: it was set to [`NO_ROWID`] before.
    marked: bool,
    /// The open transaction has changed what belongs to the connection: nobody else may have it afterwards.
    traced: bool,
}

impl SqliteExecutor {
    /// `open` is called at the first work, not before: the database may not exist yet. `max_rows` is the limit on
    /// the size of returned rows, in bytes.
    #[must_use]
    pub fn new(open: Open, max_rows: usize) -> Self {
        let outcomes = Outcomes::new(DEFAULT_RETENTION);
        Self { open, connection: None, max_rows, allowed: HashSet::new(), outcomes }
    }

    /// How long outcomes are kept, instead of [`DEFAULT_RETENTION`]. It must be longer than anybody tries to send a write
    /// or asks for its outcome.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { outcomes: Outcomes::new(retention), ..self }
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

    /// Runs work as it stands. Nothing is kept of it.
    fn alone(&mut self, settings: &Settings, work: &Work) -> Result<Done, Refusal> {
        let max_rows = self.max_rows;
        let ready = self.ready(settings)?;
        ready.mark_rowid(work)?;
        match work {
            Work::Execute(statement) => {
                let before = ready.total_changes;
                let result = ready.execute(statement);
                ready.with_a_part(result, before)
            }
            Work::Query(statement) => ready.query_alone(statement, max_rows),
            Work::Script(sql) => {
                let all = statements(sql);
                let several = all.len() > 1;
                let before = ready.total_changes;
                let result = ready.script(sql, &all);
                let result = if several { ready.failed(result) } else { ready.with_a_part(result, before) };
                let failed = result.as_ref().map_or(true, Done::failed);
                if failed || all.iter().any(leaves_a_trace) {
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

    /// Runs work in one transaction with the record of its outcome. `None`: a script's statement has taken back those
    /// before it (`OR ROLLBACK`), which outside of a transaction would stay; nothing is applied.
    fn whole(&mut self, request: &Request) -> Result<Option<Done>, Refusal> {
        let max_rows = self.max_rows;
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        ready.mark_rowid(&request.work)?;
        ready.connection.batch_execute("BEGIN IMMEDIATE").map_err(super::from_diesel)?;
        let result = ready.part_or_all(&request.work, max_rows);
        if matches!(result, Err(Refusal::Database(_))) && has_several(&request.work) {
            return Ok(None);
        }
        let committed = result.and_then(|done| {
            // What has changed nothing may as well run again.
            let keep = done.wrote != Wrote::Nothing;
            if keep {
                ready.keep(outcomes, request.id, &done)?;
            }
            ready.connection.batch_execute("COMMIT").map_err(super::from_diesel)?;
            Ok(Done { wrote: if keep { Wrote::Rows } else { Wrote::Nothing }, ..done })
        });
        if committed.is_err() {
            // Fails only where SQLite has rolled back already.
            let _ = ready.connection.batch_execute("ROLLBACK");
        }
        match committed {
            // Somebody was faster: that is what it came to.
            Err(Refusal::GivenUp) => self.kept(request.id)?.unwrap_or(Err(Refusal::GivenUp)).map(Some),
            committed => committed.map(Some),
        }
    }

    /// Runs a script that makes its own transactions, between two records: that it has begun, and what it came to.
    fn marked(&mut self, request: &Request) -> Result<Done, Refusal> {
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        let begun = ready.note(|connection| outcomes.keep(connection, request.id, &Kept::Begun))?;
        if begun.is_none() {
            return self.kept(request.id)?.unwrap_or(Err(Refusal::GivenUp));
        }
        let done = self.alone(&request.settings, &request.work);
        let ready = self.ready(&request.settings)?;
        let done = ready.failed(done)?;
        let kept = Kept::Applied(done.answer.clone(), done.effects);
        ready.note(|connection| Outcomes::update(connection, request.id, &kept).map(|()| Some(1)))?;
        // The records alone are a commit.
        Ok(Done { wrote: Wrote::Rows, ..done })
    }

    /// What was kept of a write, as its answer.
    fn kept(&mut self, id: RequestId) -> Result<Option<Result<Done, Refusal>>, Refusal> {
        let ready = self.ready(&Settings::default())?;
        let kept = Outcomes::find(&mut ready.connection, id).map_err(super::from_diesel)?;
        Ok(kept.map(|kept| match kept {
            Kept::Applied(answer, effects) => Ok(Done { answer, effects, wrote: Wrote::Nothing }),
            Kept::Begun => Err(Refusal::Interrupted),
            Kept::GivenUp => Err(Refusal::GivenUp),
        }))
    }
}

/// How a write can be applied once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Once {
    /// In one transaction with its record.
    Whole,
    /// It cannot run inside a transaction, and applied twice it is as applied once: VACUUM and PRAGMAs.
    Repeatable,
    /// A script with transactions or PRAGMAs of its own.
    Marked,
}

impl Once {
    fn of(work: &Work) -> Self {
        let all = match work {
            Work::Batch { .. } => return Once::Whole,
            // By far the most common beginnings need no look at the rest.
            Work::Execute(statement) | Work::Query(statement) if changes_rows(&statement.sql) => {
                return Once::Whole;
            }
            Work::Execute(statement) | Work::Query(statement) => statements(&statement.sql),
            Work::Script(sql) => statements(sql),
        };
        let fits = |s: &SqlStatement<'_>| {
            matches!(s.verb(), Verb::Read | Verb::Change | Verb::Schema | Verb::Unknown)
        };
        let repeats = |s: &SqlStatement<'_>| matches!(s.verb(), Verb::Pragma | Verb::Vacuum | Verb::Read);
        if all.iter().all(repeats) {
            Once::Repeatable
        } else if all.iter().all(fits) {
            Once::Whole
        } else {
            Once::Marked
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
    fn write(&mut self, request: &Request) -> Result<Done, Refusal> {
        let Request { id, delivery, again, settings, work } = request;
        self.check_alone(work)?;
        if *delivery == Delivery::AtMostOnce {
            return self.alone(settings, work);
        }
        if *again && let Some(kept) = self.kept(*id)? {
            return kept;
        }
        let ready = self.ready(settings)?;
        match Once::of(work) {
            Once::Repeatable => self.alone(settings, work),
            Once::Whole if ready.checks_at_commit(work).map_err(super::from_diesel)? => self.marked(request),
            Once::Whole => match self.whole(request)? {
                Some(done) => Ok(done),
                None => self.marked(request),
            },
            Once::Marked => self.marked(request),
        }
    }

    fn settle(&mut self, id: RequestId) -> Result<(Outcome, Wrote), Refusal> {
        self.ready(&Settings::default())?;
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no connection".into()))?;
        let settled = outcomes.settle(&mut ready.connection, id).map_err(super::from_diesel)?;
        ready.total_changes = ready.read_total_changes()?;
        Ok(settled)
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
        let trace = |s: &SqlStatement<'_>| leaves_a_trace(s) && s.verb() != Verb::Savepoint;
        ready.traced |= work.texts().any(|sql| statements(sql).iter().any(trace));
        let total = ready.total_changes;
        ready.mark_rowid(work)?;
        // The mark is no write of the transaction's.
        let marked = ready.total_changes - total;
        ready.at_begin = ready.at_begin.map(|before| before + marked);
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
        self.connection.as_mut().is_some_and(Ready::is_in_transaction)
    }

    fn commit(&mut self, keep: Option<RequestId>) -> Result<Done, Refusal> {
        let Self { connection, outcomes, .. } = self;
        let ready = connection.as_mut().ok_or_else(|| other("no transaction is active".into()))?;
        let before = ready.at_begin;
        let done = ready.done(Answer::Done, before)?;
        // A COMMIT that fails leaves the transaction open, and then without the record.
        let keep = keep.filter(|_| done.wrote != Wrote::Nothing);
        if let Some(id) = keep {
            ready.connection.batch_execute("SAVEPOINT litefs_outcome").map_err(super::from_diesel)?;
            ready.keep(outcomes, id, &done)?;
        }
        let committed = ready.connection.batch_execute("COMMIT").map_err(super::from_diesel);
        if committed.is_err() && keep.is_some() {
            // Fails only where SQLite has rolled back already.
            let _ = ready.connection.batch_execute("ROLLBACK TO litefs_outcome; RELEASE litefs_outcome");
        }
        let wrote = if keep.is_some() { Wrote::Rows } else { done.wrote };
        if committed.is_ok() && ready.traced {
            self.connection = None;
        }
        committed.map(|()| Done { wrote, ..done })
    }

    fn rollback(&mut self) {
        // What cannot be rolled back is thrown away: SQLite rolls back when the connection closes.
        if let Some(mut ready) = self.connection.take()
            && !ready.traced
            && ready.connection.batch_execute("ROLLBACK").is_ok()
        {
            self.connection = Some(ready);
        }
    }
}

impl Ready {
    fn new(mut connection: SqliteConnection) -> QueryResult<Self> {
        let settings = read_settings(&mut connection)?;
        Ok(Self { connection, settings, total_changes: 0, at_begin: None, marked: false, traced: false })
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

    /// Sets `last_insert_rowid()` to what no insert gives, where the work makes that necessary.
    fn mark_rowid(&mut self, work: &Work) -> Result<(), Refusal> {
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

    fn is_in_transaction(&mut self) -> bool {
        // SQLite refuses BEGIN inside a transaction; where it accepts it there was none.
        match self.connection.batch_execute("BEGIN") {
            Ok(()) => {
                let _ = self.connection.batch_execute("ROLLBACK");
                false
            }
            Err(_) => true,
        }
    }

    /// Keeps what the open transaction comes to.
    fn keep(&mut self, outcomes: &mut Outcomes, id: RequestId, done: &Done) -> Result<(), Refusal> {
        let kept = Kept::Applied(done.answer.clone(), done.effects);
        let noted = self.note(|connection| outcomes.keep(connection, id, &kept))?;
        noted.map(drop).ok_or(Refusal::GivenUp)
    }

    /// Writes to the table of outcomes; what that adds to `total_changes()` is nobody's effect.
    fn note(
        &mut self,
        write: impl FnOnce(&mut SqliteConnection) -> QueryResult<Option<i64>>,
    ) -> Result<Option<i64>, Refusal> {
        let added = write(&mut self.connection).map_err(super::from_diesel)?;
        self.total_changes += added.unwrap_or(0);
        Ok(added)
    }

    /// Whether a script could meet a constraint that SQLite checks at the end of a transaction: its statements would
    /// then not be checked one by one.
    fn checks_at_commit(&mut self, work: &Work) -> QueryResult<bool> {
        if !has_several(work) || !self.settings.foreign_keys {
            return Ok(false);
        }
        let deferred = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%INITIALLY%DEFERRED%')";
        let [found] = integers(&mut self.connection, deferred)?;
        Ok(found != 0)
    }

    /// Runs work in the open transaction. What fails and leaves nothing is an error, and so is what has ended the
    /// transaction; what fails and leaves a part is an answer.
    fn part_or_all(&mut self, work: &Work, max_rows: usize) -> Result<Done, Refusal> {
        let before = self.total_changes;
        let result = match work {
            Work::Execute(statement) => self.execute(statement),
            Work::Query(statement) => return self.query(statement, max_rows),
            Work::Batch { statements, rows } => return self.batch(statements, *rows, max_rows),
            Work::Script(sql) => self.script(sql, &statements(sql)),
        };
        if result.is_err() && !self.is_in_transaction() {
            return result;
        }
        if has_several(work) { self.failed(result) } else { self.with_a_part(result, before) }
    }

    /// A statement that failed has left a part behind if `total_changes()` has grown since `before`: `OR FAIL`,
    /// `RAISE(FAIL)`.
    fn with_a_part(&mut self, result: Result<Done, Refusal>, before: i64) -> Result<Done, Refusal> {
        if !matches!(result, Err(Refusal::Database(_))) {
            return result;
        }
        if self.read_total_changes()? == before { result } else { self.failed(result) }
    }

    fn read_total_changes(&mut self) -> Result<i64, Refusal> {
        let [_, _, total] = session_functions(&mut self.connection).map_err(super::from_diesel)?;
        Ok(total)
    }

    /// A failure after which something is applied, as an answer.
    fn failed(&mut self, result: Result<Done, Refusal>) -> Result<Done, Refusal> {
        match result {
            Err(Refusal::Database(error)) => self.done(Answer::Failed(error), None),
            result => result,
        }
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
        let marked = std::mem::take(&mut self.marked);
        let inserted = if marked { last_insert_rowid != NO_ROWID } else { changes > 0 };
        let effects =
            Effects { last_insert_rowid, changes, total_changes: total - self.total_changes, inserted };
        self.total_changes = total;
        Ok(Done { answer, effects, wrote })
    }
}

fn has_several(work: &Work) -> bool {
    matches!(work, Work::Script(sql) if statements(sql).len() > 1)
}

/// No table has this rowid: SQLite gives out none below 1 by itself.
const NO_ROWID: i64 = i64::MIN + 1;

/// Whether only `last_insert_rowid()` tells if the work has inserted a row at last.
fn may_insert(work: &Work) -> bool {
    let inserts = |sql: &str| statements(sql).iter().any(|statement| statement.inserts());
    match work {
        Work::Execute(statement) | Work::Query(statement) => {
            let chooses = |word: &str| tokens(&statement.sql).any(|token| token.is(word));
            inserts(&statement.sql) && (chooses("CONFLICT") || chooses("OR"))
        }
        Work::Script(sql) => inserts(sql),
        Work::Batch { statements, .. } => {
            let mut before = "";
            statements.iter().any(|statement| {
                let same = std::mem::replace(&mut before, &statement.sql) == statement.sql;
                !same && inserts(&statement.sql)
            })
        }
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
