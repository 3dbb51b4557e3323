//! Stores the outcome of each write in the write's own SQLite transaction. LiteFS replicates both
//! or neither, so the next primary can tell whether a write is applied.

mod pruning;

use std::time::Duration;

use bincode::Options;
use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::row::Row as _;
use diesel::sqlite::SqliteConnection;
use serde::{Deserialize, Serialize};

use self::pruning::{Clock, Pruner, UNDATED, system_clock};
use super::error::{UNUSABLE, is_misshapen};
use super::query::BoundQuery;
use super::rows;
use crate::wire::{Outcome, Output, RequestId, SessionCounters, Value};

/// The table: `id` is the write's, `at` the primary's clock in milliseconds since 1970
/// (the module `pruning`), `outcome` this module's encoding. Without rowid, so that it leaves
/// `last_insert_rowid()` alone.
pub const OUTCOMES_TABLE: &str = "_litefs_outcomes";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _litefs_outcomes (id BLOB PRIMARY KEY, \
                      at INTEGER NOT NULL, outcome BLOB NOT NULL) WITHOUT ROWID";
/// The conflict target makes SQLite refuse a table whose ids are not unique.
const INSERT: &str =
    "INSERT INTO _litefs_outcomes (id, at, outcome) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING";
const UPDATE: &str = "UPDATE _litefs_outcomes SET outcome = ? WHERE id = ?";
const SELECT: &str = "SELECT outcome FROM _litefs_outcomes WHERE id = ?";
/// Larger outputs are not stored, in bytes: a retry then learns only that the write is applied.
const MAX_KEPT: usize = 256 << 10;
/// The first byte of an encoding.
const FORMAT: u8 = 1;

/// How long outcomes are kept by default: much longer than a client waits for an answer.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(300);

/// What the table holds for one write.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum StoredOutcome {
    Applied(Output, SessionCounters),
    /// A script that cannot run as one transaction has begun.
    Begun,
    /// Its outcome was asked for before it arrived.
    Fenced,
}

impl StoredOutcome {
    fn outcome(self) -> Outcome {
        match self {
            StoredOutcome::Applied(answer, effects) => Outcome::Applied(answer, effects),
            StoredOutcome::Begun => Outcome::Interrupted,
            StoredOutcome::Fenced => Outcome::NotApplied,
        }
    }

    fn encode(&self) -> QueryResult<Vec<u8>> {
        let mut bytes = vec![FORMAT];
        let encoded = bincode::options().serialize_into(&mut bytes, self);
        encoded.map_err(|error| Error::SerializationError(error))?;
        match self {
            StoredOutcome::Applied(_, effects) if bytes.len() > MAX_KEPT => {
                StoredOutcome::Applied(Output::NotKept, *effects).encode()
            }
            _ => Ok(bytes),
        }
    }

    fn decode(bytes: &[u8]) -> QueryResult<Self> {
        match bytes {
            [FORMAT, rest @ ..] => bincode::options()
                .deserialize(rest)
                .map_err(|error| Error::DeserializationError(error)),
            _ => Err(Error::DeserializationError(
                format!("an outcome in {OUTCOMES_TABLE} was kept by a newer version").into(),
            )),
        }
    }
}

/// Stores and prunes outcomes.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// `None`: rows are not dated, and none are deleted.
    pruner: Option<Pruner>,
}

impl Outcomes {
    pub(super) fn new(retention: Duration) -> Self {
        Self::by_clock(retention, system_clock())
    }

    fn by_clock(retention: Duration, clock: Clock) -> Self {
        Self { pruner: Some(Pruner::new(retention, clock)) }
    }

    /// Another node may have been the primary since the last outcome was kept.
    pub(super) fn term_started(&mut self) {
        if let Some(pruner) = &mut self.pruner {
            pruner.forget();
        }
    }

    /// Keeps `kept` within the open transaction, or in one of its own. `None`: there is an outcome
    /// for this id already. Otherwise the number of rows that this has added to `total_changes()`.
    pub(super) fn keep(
        &mut self,
        connection: &mut SqliteConnection,
        id: RequestId,
        kept: &StoredOutcome,
    ) -> QueryResult<Option<i64>> {
        let dated = self.pruner.as_mut().map(Pruner::date);
        let at = dated.map_or(UNDATED, |(at, _)| at);
        let params = [id_value(id), Value::Integer(at), Value::Blob(kept.encode()?)];
        let insert = BoundQuery::new(INSERT, &params, true);
        let inserted = match connection.execute_returning_count(&insert) {
            Err(error) if is_missing(&error) => {
                connection.batch_execute(CREATE)?;
                connection.execute_returning_count(&insert)
            }
            inserted => inserted,
        };
        match inserted {
            Ok(1) => {
                let pruned = self.pruner.as_mut().zip(dated);
                let pruned =
                    pruned.map_or(Ok(0), |(pruner, (_, now))| pruner.prune(connection, now));
                Ok(Some(1 + pruned?))
            }
            Ok(_) if Self::find(connection, id)?.is_some() => Ok(None),
            Ok(_) => Err(unusable(&"an INSERT into it wrote nothing")),
            Err(error) => Err(from_table(error)),
        }
    }

    /// Puts `kept` in the place of what was kept before.
    pub(super) fn update(
        connection: &mut SqliteConnection,
        id: RequestId,
        kept: &StoredOutcome,
    ) -> QueryResult<()> {
        let params = [Value::Blob(kept.encode()?), id_value(id)];
        match connection.execute_returning_count(&BoundQuery::new(UPDATE, &params, true)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(unusable(&"an UPDATE of it wrote nothing")),
            Err(error) => Err(from_table(error)),
        }
    }

    /// What was kept for a write.
    pub(super) fn find(
        connection: &mut SqliteConnection,
        id: RequestId,
    ) -> QueryResult<Option<StoredOutcome>> {
        let params = [id_value(id)];
        // A statement that is prepared already says only when it runs that the table is gone (its
        // creation was undone).
        let first = connection.load(BoundQuery::new(SELECT, &params, true)).and_then(|mut rows| {
            let row = rows.next().transpose()?;
            Ok(row.map(|row| row.get(0).map(|field| rows::value(&field))))
        });
        match first {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(from_table(error)),
            Ok(None) => Ok(None),
            Ok(Some(Some(Value::Blob(bytes)))) => StoredOutcome::decode(&bytes).map(Some),
            Ok(Some(_)) => Err(Error::DeserializationError(
                format!("{OUTCOMES_TABLE} holds no outcome for {id}").into(),
            )),
        }
    }

    /// What became of a write. If it is not applied, its id is fenced: a late retry is rejected.
    pub(super) fn resolve(
        &mut self,
        connection: &mut SqliteConnection,
        id: RequestId,
    ) -> QueryResult<Outcome> {
        if self.keep(connection, id, &StoredOutcome::Fenced)?.is_some() {
            return Ok(Outcome::NotApplied);
        }
        let kept =
            Self::find(connection, id)?.ok_or_else(|| unusable(&"a row of it has vanished"))?;
        Ok(kept.outcome())
    }
}

/// Whether the write `id` is applied in the file that `connection` is open on, replica or not.
/// Writes nothing.
///
/// # Errors
/// What SQLite says.
pub fn is_applied(connection: &mut SqliteConnection, id: RequestId) -> QueryResult<bool> {
    Ok(matches!(
        Outcomes::find(connection, id)?,
        Some(StoredOutcome::Applied(..) | StoredOutcome::Begun)
    ))
}

/// What became of the write `id`, asked on a node that is the primary itself: as
/// [`Executor::resolve_outcome`](crate::Executor::resolve_outcome).
///
/// # Errors
/// What SQLite says.
pub fn resolve_outcome(connection: &mut SqliteConnection, id: RequestId) -> QueryResult<Outcome> {
    Outcomes { pruner: None }.resolve(connection, id)
}

fn id_value(id: RequestId) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

/// Says why no outcome can be stored, and what to do.
fn unusable(why: &dyn std::fmt::Display) -> Error {
    let message = format!(
        "{UNUSABLE}: {why}. The table is the library's own: drop what is in its place (a table or \
         view of that name, a trigger on it), and the next write creates it again"
    );
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message))
}

/// An error of a statement of this module, where it says that the table is not as it should be.
fn from_table(error: Error) -> Error {
    if is_misshapen(&error, OUTCOMES_TABLE) { unusable(&error) } else { error }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if information.message() == "no such table: _litefs_outcomes")
}

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod tests;
