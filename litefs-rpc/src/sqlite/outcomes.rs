//! What became of each write, kept in the same SQLite transaction as the write itself, so that LiteFS replicates both or
//! neither: whichever node is the primary next can tell whether a write is applied.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::Options;
use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::row::Row as _;
use diesel::sqlite::SqliteConnection;
use serde::{Deserialize, Serialize};

use super::query::BoundQuery;
use super::rows;
use crate::wire::{Answer, Effects, Outcome, RequestId, Value};

/// The table: `id` is the write's, `at` the primary's clock in milliseconds since 1970, `outcome` this module's encoding.
/// Without rowid, so that it leaves `last_insert_rowid()` alone.
pub const OUTCOMES_TABLE: &str = "_litefs_outcomes";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _litefs_outcomes (id BLOB PRIMARY KEY, at INTEGER NOT NULL, outcome BLOB \
                      NOT NULL) WITHOUT ROWID";
const INSERT: &str = "INSERT INTO _litefs_outcomes (id, at, outcome) VALUES (?, ?, ?)";
const UPDATE: &str = "UPDATE _litefs_outcomes SET outcome = ? WHERE id = ?";
const SELECT: &str = "SELECT outcome FROM _litefs_outcomes WHERE id = ?";
/// Ids sort by the clock of the node that made them; `at` protects those of a node whose clock is slow.
const PRUNE: &str = "DELETE FROM _litefs_outcomes WHERE id IN (SELECT id FROM _litefs_outcomes WHERE id < ?1 AND at < ?2 \
                     LIMIT 256)";

/// How many outcomes are kept between two prunings.
const PRUNE_EVERY: u32 = 64;
/// Rows beyond this many bytes are not kept with the outcome: who asks again hears that the write is applied, no more.
const MAX_KEPT: usize = 256 << 10;
/// The first byte of an encoding.
const FORMAT: u8 = 1;

/// How long outcomes are kept, unless said otherwise: much longer than anybody waits for an answer.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(300);

/// What the table holds for one write.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Kept {
    Applied(Answer, Effects),
    /// A script that cannot run as one transaction has begun.
    Begun,
    /// Somebody asked before it arrived.
    GivenUp,
}

impl Kept {
    fn outcome(self) -> Outcome {
        match self {
            Kept::Applied(answer, effects) => Outcome::Applied(answer, effects),
            Kept::Begun => Outcome::Interrupted,
            Kept::GivenUp => Outcome::NotApplied,
        }
    }

    fn encode(&self) -> QueryResult<Vec<u8>> {
        let mut bytes = vec![FORMAT];
        let encoded = bincode::options().serialize_into(&mut bytes, self);
        encoded.map_err(|error| Error::SerializationError(error))?;
        match self {
            Kept::Applied(_, effects) if bytes.len() > MAX_KEPT => {
                Kept::Applied(Answer::NotKept, *effects).encode()
            }
            _ => Ok(bytes),
        }
    }

    fn decode(bytes: &[u8]) -> QueryResult<Self> {
        match bytes {
            [FORMAT, rest @ ..] => {
                bincode::options().deserialize(rest).map_err(|error| Error::DeserializationError(error))
            }
            _ => Err(Error::DeserializationError(
                format!("an outcome in {OUTCOMES_TABLE} was kept by a newer version").into(),
            )),
        }
    }
}

/// Keeps and prunes.
#[derive(Debug)]
pub(super) struct Outcomes {
    retention: Duration,
    since_pruned: u32,
}

impl Outcomes {
    pub(super) fn new(retention: Duration) -> Self {
        Self { retention, since_pruned: 0 }
    }

    /// Keeps `kept` within the open transaction, or in one of its own. `None`: there is an outcome for this id already.
    /// Otherwise the number of rows that this has added to `total_changes()`.
    pub(super) fn keep(
        &mut self,
        connection: &mut SqliteConnection,
        id: RequestId,
        kept: &Kept,
    ) -> QueryResult<Option<i64>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let params = [id_value(id), millis(now), Value::Blob(kept.encode()?)];
        let insert = BoundQuery::new(INSERT, &params, true);
        let inserted = match connection.execute_returning_count(&insert) {
            Err(error) if is_missing(&error) => {
                connection.batch_execute(CREATE)?;
                connection.execute_returning_count(&insert)
            }
            inserted => inserted,
        };
        match inserted {
            Ok(_) => Ok(Some(1 + self.prune(connection, now)?)),
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `kept` in the place of what was kept before.
    pub(super) fn update(connection: &mut SqliteConnection, id: RequestId, kept: &Kept) -> QueryResult<()> {
        let params = [Value::Blob(kept.encode()?), id_value(id)];
        connection.execute_returning_count(&BoundQuery::new(UPDATE, &params, true)).map(drop)
    }

    /// What was kept for a write.
    pub(super) fn find(connection: &mut SqliteConnection, id: RequestId) -> QueryResult<Option<Kept>> {
        let params = [id_value(id)];
        // A statement that is prepared already says only when it runs that the table is gone (its creation was undone).
        let first = connection.load(BoundQuery::new(SELECT, &params, true)).and_then(|mut rows| {
            let row = rows.next().transpose()?;
            Ok(row.map(|row| row.get(0).map(|field| rows::value(&field))))
        });
        match first {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(None) => Ok(None),
            Ok(Some(Some(Value::Blob(bytes)))) => Kept::decode(&bytes).map(Some),
            Ok(Some(_)) => {
                Err(Error::DeserializationError(format!("{OUTCOMES_TABLE} holds no outcome for {id}").into()))
            }
        }
    }

    /// What became of a write; one that is not applied is given up.
    pub(super) fn settle(
        &mut self,
        connection: &mut SqliteConnection,
        id: RequestId,
    ) -> QueryResult<Outcome> {
        if self.keep(connection, id, &Kept::GivenUp)?.is_some() {
            return Ok(Outcome::NotApplied);
        }
        let kept = Self::find(connection, id)?;
        Ok(kept.map_or(Outcome::NotApplied, Kept::outcome))
    }

    fn prune(&mut self, connection: &mut SqliteConnection, now: Duration) -> QueryResult<i64> {
        self.since_pruned += 1;
        if self.since_pruned < PRUNE_EVERY {
            return Ok(0);
        }
        self.since_pruned = 0;
        let before = now.saturating_sub(self.retention);
        let params = [id_value(RequestId::earliest_at(before)), millis(before)];
        let pruned = connection.execute_returning_count(&BoundQuery::new(PRUNE, &params, true))?;
        Ok(i64::try_from(pruned).unwrap_or(i64::MAX))
    }
}

/// Whether the write `id` is applied in the file that `connection` is open on, replica or not. Writes nothing.
///
/// # Errors
/// What SQLite says.
pub fn is_applied(connection: &mut SqliteConnection, id: RequestId) -> QueryResult<bool> {
    Ok(matches!(Outcomes::find(connection, id)?, Some(Kept::Applied(..) | Kept::Begun)))
}

/// What became of the write `id`, asked on a node that is the primary itself: as
/// [`Executor::settle`](crate::Executor::settle).
///
/// # Errors
/// What SQLite says.
pub fn settle(connection: &mut SqliteConnection, id: RequestId) -> QueryResult<Outcome> {
    Outcomes::new(DEFAULT_RETENTION).settle(connection, id)
}

fn id_value(id: RequestId) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

fn millis(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if information.message() == "no such table: _litefs_outcomes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Kept {
        Kept::Applied(
            Answer::Count(3),
            Effects { last_insert_rowid: 7, changes: 3, total_changes: 4, inserted: true },
        )
    }

    #[test]
    fn an_outcome_is_kept_once_and_found_again() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        let mut outcomes = Outcomes::new(DEFAULT_RETENTION);
        let (one, other) = (RequestId::new(), RequestId::new());
        assert_eq!(Outcomes::find(&mut conn, one).unwrap(), None);
        assert_eq!(outcomes.keep(&mut conn, one, &applied()).unwrap(), Some(1));
        assert_eq!(outcomes.keep(&mut conn, one, &Kept::GivenUp).unwrap(), None);
        assert_eq!(Outcomes::find(&mut conn, one).unwrap(), Some(applied()));
        assert_eq!(Outcomes::find(&mut conn, other).unwrap(), None);
        outcomes.keep(&mut conn, other, &Kept::Begun).unwrap();
        Outcomes::update(&mut conn, other, &applied()).unwrap();
        assert_eq!(Outcomes::find(&mut conn, other).unwrap(), Some(applied()));
    }

    #[test]
    fn rows_that_are_too_large_are_left_out() {
        let rows =
            crate::wire::RowSet { columns: vec!["x".into()], values: vec![Value::Blob(vec![0; MAX_KEPT])] };
        let kept = Kept::Applied(Answer::Rows(rows), Effects::default());
        let back = Kept::decode(&kept.encode().unwrap()).unwrap();
        assert_eq!(back, Kept::Applied(Answer::NotKept, Effects::default()));
    }

    #[test]
    fn a_newer_encoding_is_an_error_and_not_a_guess() {
        assert!(Kept::decode(&[FORMAT + 1, 0]).is_err());
        assert!(Kept::decode(&[]).is_err());
        assert!(Kept::decode(&[FORMAT, 250]).is_err());
    }

    #[test]
    fn old_outcomes_are_pruned_and_new_ones_are_not() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        let mut outcomes = Outcomes::new(Duration::from_millis(40));
        let count = |conn: &mut SqliteConnection| {
            let mut rows =
                conn.load(BoundQuery::new("SELECT count(*) FROM _litefs_outcomes", &[], false)).unwrap();
            rows::value(&rows.next().unwrap().unwrap().get(0).unwrap())
        };
        for _ in 1..PRUNE_EVERY {
            outcomes.keep(&mut conn, RequestId::new(), &applied()).unwrap();
        }
        // Nobody else's clock is involved, so it is enough to wait until this one has moved on.
        let start = SystemTime::now();
        while start.elapsed().unwrap() < Duration::from_millis(60) {
            std::thread::yield_now();
        }
        let last = RequestId::new();
        let added = outcomes.keep(&mut conn, last, &applied()).unwrap();
        assert_eq!(added, Some(1 + i64::from(PRUNE_EVERY) - 1));
        assert_eq!(count(&mut conn), Value::Integer(1));
        assert!(Outcomes::find(&mut conn, last).unwrap().is_some());
    }
}
