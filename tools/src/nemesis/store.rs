//! The lists as a table, and the operations on them as an application would write them.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use litefs_diesel::{Acknowledgement, Failure, LiteFsConnection};

use super::history::{Key, Op, Outcome, Receipt, Row, Value};

/// The attempts of a transaction with retries.
const ATTEMPTS: usize = 5;

/// Only the order is unique: an element that was appended twice shows in its list.
const DDL: &str = "CREATE TABLE IF NOT EXISTS appends (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key BIGINT NOT NULL,
    value BIGINT NOT NULL,
    seen BIGINT
);
CREATE INDEX IF NOT EXISTS appends_by_key ON appends (key, seq);";

diesel::table! {
    appends (seq) {
        seq -> BigInt,
        key -> BigInt,
        value -> BigInt,
        seen -> Nullable<BigInt>,
    }
}

pub(super) fn create_schema(conn: &mut LiteFsConnection) -> QueryResult<()> {
    conn.batch_execute(DDL)
}

/// Executes an operation.
pub(super) fn run(conn: &mut LiteFsConnection, op: &Op) -> Outcome {
    let before = conn.acknowledgement();
    let result = match op {
        Op::Append { key, value } => append(conn, *key, *value, None).map(|()| Vec::new()),
        Op::ReadThenAppend { key, value, with_retry: false } => {
            conn.transaction(|conn| read_then_append(conn, *key, *value))
        }
        Op::ReadThenAppend { key, value, with_retry: true } => {
            conn.transaction_with_retry(ATTEMPTS, |conn| read_then_append(conn, *key, *value))
        }
        Op::Batch { items } => batch(conn, items).map(|()| Vec::new()),
        Op::Read { key } => read(conn, *key),
    };
    match result {
        Ok(seen) => {
            // The acknowledgement of an earlier write would be wrong for this one.
            let new = conn.acknowledgement().filter(|new| Some(*new) != before);
            Outcome::Done { seen, receipt: new.map(Receipt::from) }
        }
        Err(error) => failed(&error),
    }
}

impl From<Acknowledgement> for Receipt {
    fn from(acknowledgement: Acknowledgement) -> Self {
        let position = acknowledgement.position;
        let request = acknowledgement.request.map(|request| request.to_string());
        Self { txid: position.txid.get(), position: position.to_string(), request }
    }
}

/// Trusts the library: a failure that is not an unknown outcome means that nothing was applied.
fn failed(error: &Error) -> Outcome {
    let why = format!("{:?}: {error}", Failure::of(error));
    match Failure::of(error) {
        Some(Failure::OutcomeUnknown) => Outcome::Unknown { why },
        _ => Outcome::Refused { why },
    }
}

fn append(
    conn: &mut LiteFsConnection,
    key: Key,
    value: Value,
    seen: Option<i64>,
) -> QueryResult<()> {
    let row = (appends::key.eq(key), appends::value.eq(value), appends::seen.eq(seen));
    diesel::insert_into(appends::table).values(row).execute(conn).map(drop)
}

fn read(conn: &mut LiteFsConnection, key: Key) -> QueryResult<Vec<Value>> {
    appends::table
        .filter(appends::key.eq(key))
        .order(appends::seq)
        .select(appends::value)
        .load(conn)
}

fn read_then_append(
    conn: &mut LiteFsConnection,
    key: Key,
    value: Value,
) -> QueryResult<Vec<Value>> {
    let list = read(conn, key)?;
    let length =
        i64::try_from(list.len()).map_err(|error| Error::SerializationError(error.into()))?;
    append(conn, key, value, Some(length))?;
    Ok(list)
}

fn batch(conn: &mut LiteFsConnection, items: &[(Key, Value)]) -> QueryResult<()> {
    let inserts: Vec<_> = items
        .iter()
        .map(|(key, value)| {
            diesel::insert_into(appends::table)
                .values((appends::key.eq(*key), appends::value.eq(*value)))
        })
        .collect();
    let queries: Vec<&dyn diesel::query_builder::QueryFragment<diesel::sqlite::Sqlite>> =
        inserts.iter().map(|insert| insert as _).collect();
    conn.execute_batch(&queries).map(drop)
}

/// All rows, in the order of appending.
pub(super) fn all(conn: &mut LiteFsConnection) -> QueryResult<Vec<Row>> {
    let rows: Vec<(Key, Value, Option<i64>)> = appends::table
        .order(appends::seq)
        .select((appends::key, appends::value, appends::seen))
        .load(conn)?;
    Ok(rows.into_iter().map(|(key, value, seen)| Row { key, value, seen }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_changes_and_reads_the_lists() {
        let mut conn = LiteFsConnection::establish(":memory:").unwrap();
        create_schema(&mut conn).unwrap();
        let mut run = |op| run(&mut conn, &op);
        let done = |seen: &[Value]| Outcome::Done { seen: seen.to_vec(), receipt: None };
        assert_eq!(run(Op::Append { key: 1, value: 10 }), done(&[]));
        assert_eq!(run(Op::Batch { items: vec![(1, 11), (2, 20)] }), done(&[]));
        assert_eq!(
            run(Op::ReadThenAppend { key: 1, value: 12, with_retry: false }),
            done(&[10, 11])
        );
        assert_eq!(
            run(Op::ReadThenAppend { key: 1, value: 13, with_retry: true }),
            done(&[10, 11, 12])
        );
        assert_eq!(run(Op::Read { key: 1 }), done(&[10, 11, 12, 13]));
        let rows = all(&mut conn).unwrap();
        assert_eq!(rows[3], Row { key: 1, value: 12, seen: Some(2) });
        conn.batch_execute("DROP TABLE appends").unwrap();
        let refused = super::run(&mut conn, &Op::Read { key: 1 });
        assert!(matches!(refused, Outcome::Refused { .. }), "{refused:?}");
    }
}
