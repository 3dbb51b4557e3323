//! The verdict on a load: compares the responses to the writers with the rows at the end.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use crate::node::Outcome;
use crate::wire::Row;

/// The number of violations that are described; all are counted.
const MAX_DETAILS: usize = 8;

/// One attempt to write.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) started: Instant,
    pub(crate) outcome: Outcome,
    pub(crate) write: Write,
}

/// The write. Each attempt has a key or a number of its own, so that refused ones can be searched
/// for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// A new row with this key.
    Post { key: String },
    /// A number in the row with this key. One writer sets it, to increasing numbers.
    Set { key: String, number: u32 },
}

/// A primary that died. LiteFS replicates asynchronously, so writes that it acknowledged but did
/// not ship are lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// When it was known to be dead.
    pub(crate) dead_at: Instant,
    /// When the other node had become the primary.
    pub(crate) succeeded_at: Instant,
    /// The last transaction that the other node received from it.
    pub(crate) shipped: u64,
}

impl Death {
    /// Whether an acknowledged write may be lost with this primary.
    fn may_have_lost(&self, started: Instant, answered: Instant, txid: Option<u64>) -> bool {
        let by_the_dead = started <= self.dead_at && answered < self.succeeded_at;
        by_the_dead && txid.is_none_or(|txid| txid > self.shipped)
    }
}

/// The required state of a write at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    There,
    /// Acknowledged and not shipped.
    AtRisk,
    NotThere,
    Open,
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Acknowledged, and therefore expected to be stored.
    pub(crate) acknowledged: u64,
    /// Acknowledged by the dead primary, but not shipped.
    pub(crate) unshipped: u64,
    /// Of those: lost.
    pub(crate) lost_by_litefs: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Of those: stored.
    pub(crate) unknown_applied: u64,
    /// Acknowledged and shipped, but missing. Must be 0.
    pub(crate) lost: u64,
    /// Stored more than once. Must be 0.
    pub(crate) duplicated: u64,
    /// Refused, but stored. Must be 0.
    pub(crate) refused_but_there: u64,
    /// Descriptions of the first few violations.
    pub(crate) details: Vec<String>,
}

impl Judgement {
    /// Compares `attempts` with the `rows` of both nodes.
    pub(crate) fn of(attempts: &[Attempt], rows: &[Row], death: Option<&Death>) -> Self {
        let mut judgement = Self::default();
        let mut by_key: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in rows {
            by_key.entry(row.new.client_key.as_deref().unwrap_or_default()).or_default().push(row);
        }
        let found = |key: &str| by_key.get(key).map_or(&[][..], Vec::as_slice);
        for attempt in attempts {
            let expected = judgement.count(attempt, death);
            match &attempt.write {
                Write::Post { key } => judgement.post(key, expected, found(key).len()),
                Write::Set { key, number } => {
                    judgement.set(
                        key,
                        *number,
                        expected,
                        found(key).first().map(|row| row.new.latitude),
                    );
                }
            }
        }
        judgement
    }

    pub(crate) fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.refused_but_there == 0
    }

    fn count(&mut self, attempt: &Attempt, death: Option<&Death>) -> Expected {
        let (counter, expected) = match &attempt.outcome {
            Outcome::Acknowledged { txid, answered, .. } => {
                match death
                    .is_some_and(|death| death.may_have_lost(attempt.started, *answered, *txid))
                {
                    true => (&mut self.unshipped, Expected::AtRisk),
                    false => (&mut self.acknowledged, Expected::There),
                }
            }
            Outcome::Refused(_) => (&mut self.refused, Expected::NotThere),
            Outcome::Unknown(_) => (&mut self.unknown, Expected::Open),
        };
        *counter += 1;
        expected
    }

    fn post(&mut self, key: &str, expected: Expected, times: usize) {
        if times > 1 {
            self.duplicated += 1;
            self.note(format!("{key} is stored {times} times"));
        }
        match (expected, times) {
            (Expected::There, 0) => {
                self.lost += 1;
                self.note(format!("{key} was acknowledged and is missing"));
            }
            (Expected::AtRisk, 0) => self.lost_by_litefs += 1,
            (Expected::NotThere, 1..) => {
                self.refused_but_there += 1;
                self.note(format!("{key} was refused and is stored"));
            }
            (Expected::Open, 1..) => self.unknown_applied += 1,
            _ => {}
        }
    }

    /// A later number may have replaced this one, an earlier one must not. `None` means that the
    /// row is missing, which `post` judges.
    fn set(&mut self, key: &str, number: u32, expected: Expected, found: Option<f64>) {
        let Some(found) = found else { return };
        let number_as_found = f64::from(number);
        match expected {
            Expected::There if found < number_as_found => {
                self.lost += 1;
                self.note(format!("{key} was set to {number} and is {found}"));
            }
            Expected::AtRisk if found < number_as_found => self.lost_by_litefs += 1,
            Expected::NotThere if found == number_as_found => {
                self.refused_but_there += 1;
                self.note(format!("{key} is {found}, which was refused"));
            }
            Expected::Open if found == number_as_found => self.unknown_applied += 1,
            _ => {}
        }
    }

    fn note(&mut self, detail: String) {
        if self.details.len() < MAX_DETAILS {
            self.details.push(detail);
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged: {} lost, {} duplicated; {} refused: {} stored; {} unknown: {} \
             stored; {} acknowledged but not shipped by a primary that died: {} lost by LiteFS",
            self.acknowledged,
            self.lost,
            self.duplicated,
            self.refused,
            self.refused_but_there,
            self.unknown,
            self.unknown_applied,
            self.unshipped,
            self.lost_by_litefs
        )?;
        self.details.iter().try_for_each(|detail| write!(f, "\n  {detail}"))
    }
}

#[cfg(test)]
mod tests;
