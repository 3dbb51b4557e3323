//! A transaction that ran on a replica's snapshot, recorded so that the primary can run it again.

use litefs_core::Position;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Command, DatabaseError, Output, RowSet, Value};

/// What a transaction did on a replica, in order, and what its application saw.
///
/// The primary runs the steps again in one transaction and compares the results. If all are equal,
/// the transaction is as if it had run there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedTransaction {
    /// The position of the snapshot that the steps before the first write have read. A primary that
    /// is still there need not run them again. `None`: it is not known.
    pub snapshot: Option<Position>,
    /// The steps.
    pub steps: Vec<RecordedStep>,
    /// A command that only the primary can run. It is run after the steps, and its output is the
    /// output of the whole.
    pub next: Option<Box<Command>>,
}

/// One statement of a recorded transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// What ran: one statement, a batch, or a script of SAVEPOINT, RELEASE and ROLLBACK TO.
    pub work: Command,
    /// Whether it only reads.
    pub reads: bool,
    /// What the application saw.
    pub seen: Seen,
}

/// A digest of the result of one statement.
///
/// The first 128 bits of SHA-256 over the output or the error. Values count as SQLite stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Whether the order of the rows counts. SQLite promises an order for ORDER BY only.
    pub ordered: bool,
    digest: u128,
}

impl RecordedTransaction {
    /// The bytes that this adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        let steps = self.steps.iter().map(RecordedStep::size);
        let next = self.next.iter().map(|next| next.size());
        steps.chain(next).fold(32, usize::saturating_add)
    }

    /// The commands of the steps, and the next one.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.steps.iter().map(|step| &step.work).chain(self.next.as_deref())
    }
}

impl RecordedStep {
    /// The bytes that this adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.work.size().saturating_add(32)
    }
}

impl Seen {
    /// The digest of a result.
    #[must_use]
    pub fn of(result: &Result<Output, DatabaseError>, ordered: bool) -> Self {
        let digest = match result {
            Ok(Output::Rows(rows)) => rows_digest(rows, ordered),
            other => {
                let mut hash = Hash::new(b'o');
                match other {
                    Ok(Output::Count(count)) => hash.number(*count),
                    Ok(Output::Counts(counts)) => {
                        hash.number(counts.len() as u64);
                        counts.iter().for_each(|count| hash.number(*count));
                    }
                    Ok(Output::Failed(error)) | Err(error) => {
                        hash.bytes(format!("{:?}", error.kind).as_bytes());
                        hash.bytes(error.message.as_bytes());
                    }
                    Ok(Output::Value(bytes)) => hash.bytes(bytes),
                    Ok(Output::Done | Output::NotKept | Output::Rows(_)) => {}
                }
                hash.finish()
            }
        };
        Self { ordered, digest }
    }

    /// Whether a result is the one that was seen.
    #[must_use]
    pub fn is(&self, result: &Result<Output, DatabaseError>) -> bool {
        *self == Self::of(result, self.ordered)
    }
}

/// Without an order, the sum of the rows' digests: the same for the same rows in any order.
fn rows_digest(rows: &RowSet, ordered: bool) -> u128 {
    let mut whole = Hash::new(b'r');
    whole.number(rows.len() as u64);
    // SQLite names no columns where there are no rows.
    rows.columns.iter().for_each(|column| whole.bytes(column.as_bytes()));
    let mut sum = 0_u128;
    for row in rows.values.chunks(rows.columns.len().max(1)) {
        let mut hash = Hash::new(b'v');
        row.iter().for_each(|value| hash.value(value));
        let row = hash.finish();
        if ordered {
            whole.bytes(&row.to_le_bytes());
        } else {
            sum = sum.wrapping_add(row);
        }
    }
    whole.bytes(&sum.to_le_bytes());
    whole.finish()
}

/// SHA-256 over parts, each with its kind and length, so that no two results have the same bytes.
struct Hash(Sha256);

impl Hash {
    fn new(kind: u8) -> Self {
        Self(Sha256::new_with_prefix([kind]))
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.update(b"n"),
            Value::Integer(integer) => {
                self.0.update(b"i");
                self.0.update(integer.to_le_bytes());
            }
            Value::Real(real) => {
                self.0.update(b"f");
                self.0.update(real.to_bits().to_le_bytes());
            }
            Value::Text(text) => {
                self.0.update(b"t");
                self.bytes(text.as_bytes());
            }
            Value::Blob(bytes) => {
                self.0.update(b"b");
                self.bytes(bytes);
            }
        }
    }

    fn finish(self) -> u128 {
        let digest: [u8; 32] = self.0.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DatabaseErrorKind;

    fn rows(columns: &[&str], values: Vec<Value>) -> Result<Output, DatabaseError> {
        let columns = columns.iter().map(ToString::to_string).collect();
        Ok(Output::Rows(RowSet { columns, values }))
    }

    fn error(message: &str) -> Result<Output, DatabaseError> {
        Err(DatabaseError { kind: DatabaseErrorKind::Other, message: message.into() })
    }

    #[test]
    fn each_difference_that_an_application_can_see_counts() {
        use Value::{Blob, Integer, Null, Real, Text};
        let results = [
            Ok(Output::Done),
            Ok(Output::Count(0)),
            Ok(Output::Count(1)),
            Ok(Output::Counts(vec![1])),
            Ok(Output::Counts(vec![1, 1])),
            rows(&[], vec![]),
            rows(&["a"], vec![Null]),
            rows(&["b"], vec![Null]),
            rows(&["a"], vec![Null, Null]),
            rows(&["a", "b"], vec![Null, Null]),
            rows(&["a"], vec![Integer(1)]),
            rows(&["a"], vec![Real(1.0)]),
            rows(&["a"], vec![Real(0.0)]),
            rows(&["a"], vec![Real(-0.0)]),
            rows(&["a"], vec![Text("1".into())]),
            rows(&["a"], vec![Blob(b"1".to_vec())]),
            rows(&["a", "b"], vec![Text("xy".into()), Text("z".into())]),
            rows(&["a", "b"], vec![Text("x".into()), Text("yz".into())]),
            error("one"),
            error("other"),
        ];
        for (index, one) in results.iter().enumerate() {
            for (other_index, other) in results.iter().enumerate() {
                let same = Seen::of(one, false).is(other);
                assert_eq!(same, index == other_index, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn the_order_of_rows_counts_where_sqlite_promises_one() {
        let one = rows(&["a"], vec![Value::Integer(1), Value::Integer(2)]);
        let other = rows(&["a"], vec![Value::Integer(2), Value::Integer(1)]);
        assert!(Seen::of(&one, false).is(&other));
        assert!(!Seen::of(&one, true).is(&other));
        let twice = rows(&["a"], vec![Value::Integer(1), Value::Integer(1)]);
        assert!(!Seen::of(&one, false).is(&twice));
    }
}
