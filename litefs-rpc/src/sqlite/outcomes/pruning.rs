//! Deletes old outcomes: those that this process has known for the retention, by a monotonic clock.
//!
//! `at` only puts the rows in order: it follows the wall clock and never goes back. From time to
//! time a mark is set: every row with an `at` up to the mark's exists by then. When the mark has
//! the age of the retention, those rows are deleted. Neither the clocks of other nodes, nor the
//! ones that made the ids, nor a jump of this one's change what a mark covers.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use diesel::connection::{Connection, LoadConnection};
use diesel::result::QueryResult;
use diesel::row::Row as _;
use diesel::sqlite::SqliteConnection;

use crate::sqlite::query::BoundQuery;
use crate::sqlite::rows::value;
use crate::wire::Value;

/// How many outcomes are kept between two looks at what may go.
pub(super) const EVERY: u32 = 64;
/// The most rows that are looked at each time.
const CHUNK: i64 = 256;
/// Marks in one retention: rows stay for at most this part of it longer than they must.
const MARKS: u32 = 4;
/// `at` of a row that no pruner has seen: later than every mark.
pub(super) const UNDATED: i64 = i64::MAX;

const LARGEST: &str = "SELECT max(id) FROM _litefs_outcomes";
const LOOK: &str = "SELECT max(id), max(at), count(*) FROM (SELECT id, at FROM _litefs_outcomes \
                    WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)";
const DELETE: &str = "DELETE FROM _litefs_outcomes WHERE id > ?1 AND id <= ?2 AND at <= ?3";
const DATE: &str = "UPDATE _litefs_outcomes SET at = ?3 WHERE id > ?1 AND id <= ?2 AND at > ?3";

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Since 1970, as the machine's clock has it.
    pub(super) wall: Duration,
    /// Since some moment of this process's life; it never jumps.
    pub(super) steady: Duration,
}

pub(super) type Clock = Box<dyn FnMut() -> Moment + Send>;

pub(super) fn system_clock() -> Clock {
    let start = Instant::now();
    Box::new(move || Moment {
        wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        steady: start.elapsed(),
    })
}

/// All rows with an `at` up to this one's are there since it was set.
struct Mark {
    set: Duration,
    at: i64,
    /// The largest id then.
    largest: Value,
}

/// Dates new rows and deletes old ones.
pub(super) struct Pruner {
    retention: Duration,
    clock: Clock,
    /// The latest `at` that was given.
    at: i64,
    kept: u32,
    /// Oldest first.
    marks: VecDeque<Mark>,
    /// How far the sweep for the oldest mark has come.
    cursor: Value,
}

impl Pruner {
    pub(super) fn new(retention: Duration, clock: Clock) -> Self {
        let (marks, cursor) = (VecDeque::new(), START);
        Self { retention, clock, at: i64::MIN, kept: 0, marks, cursor }
    }

    /// Another node may have been the primary meanwhile: its rows may be younger than the marks
    /// say.
    pub(super) fn forget(&mut self) {
        self.marks.clear();
        self.cursor = START;
    }

    /// The date of a new row.
    pub(super) fn date(&mut self) -> (i64, Duration) {
        let Moment { wall, steady } = (self.clock)();
        self.at = self.at.max(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX / 2));
        (self.at, steady)
    }

    /// To be called at `now` with each row that was kept. Answers how many rows were deleted or
    /// dated anew.
    pub(super) fn prune(
        &mut self,
        connection: &mut SqliteConnection,
        now: Duration,
    ) -> QueryResult<i64> {
        self.kept += 1;
        if self.kept < EVERY && !self.marks.is_empty() {
            return Ok(0);
        }
        self.kept = 0;
        let age = |mark: &Mark| now.saturating_sub(mark.set);
        if self.marks.back().is_none_or(|last| age(last) >= self.retention / MARKS) {
            self.mark(connection, now)?;
        }
        let expired = self.marks.iter().take_while(|mark| age(mark) > self.retention).count();
        // The latest one covers what those before it do.
        self.marks.drain(..expired.saturating_sub(1));
        if expired > 0 { self.sweep(connection) } else { Ok(0) }
    }

    fn mark(&mut self, connection: &mut SqliteConnection, now: Duration) -> QueryResult<()> {
        let [largest] = row(connection, LARGEST, &[])?;
        self.marks.push_back(Mark { set: now, at: self.at, largest });
        // Rows of the same millisecond come after the mark.
        self.at += 1;
        Ok(())
    }

    /// Goes on through the rows that the oldest mark covers.
    fn sweep(&mut self, connection: &mut SqliteConnection) -> QueryResult<i64> {
        let Some(mark) = self.marks.front() else { return Ok(0) };
        let range = [self.cursor.clone(), mark.largest.clone(), Value::Integer(CHUNK)];
        let [end, latest, count] = row(connection, LOOK, &range)?;
        let mut changed = 0;
        if count != Value::Integer(0) {
            let chunk = |at| [self.cursor.clone(), end.clone(), Value::Integer(at)];
            changed += run(connection, DELETE, &chunk(mark.at))?;
            // Not by this process's clock: it counts as of today.
            if matches!(latest, Value::Integer(latest) if latest > self.at) {
                changed += run(connection, DATE, &chunk(self.at))?;
            }
        }
        if count == Value::Integer(CHUNK) {
            self.cursor = end;
        } else {
            self.marks.pop_front();
            self.cursor = START;
        }
        Ok(changed)
    }
}

/// Before every id.
const START: Value = Value::Blob(Vec::new());

fn run(connection: &mut SqliteConnection, sql: &str, params: &[Value]) -> QueryResult<i64> {
    let changed = connection.execute_returning_count(&BoundQuery::new(sql, params, true))?;
    Ok(i64::try_from(changed).unwrap_or(i64::MAX))
}

/// The only row of a query.
fn row<const N: usize>(
    connection: &mut SqliteConnection,
    sql: &str,
    params: &[Value],
) -> QueryResult<[Value; N]> {
    let mut rows = connection.load(BoundQuery::new(sql, params, true))?;
    let row = rows.next().ok_or(diesel::result::Error::NotFound)??;
    Ok(std::array::from_fn(|index| row.get(index).map_or(Value::Null, |field| value(&field))))
}

impl std::fmt::Debug for Pruner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pruner").field("retention", &self.retention).finish_non_exhaustive()
    }
}
