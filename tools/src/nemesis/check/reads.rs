//! Checks on what each read saw.
//!
//! A list only grows, so a read sees a prefix of the final list, plus elements that a later
//! failover took away. The minimum length of that prefix follows from earlier operations: every
//! append that was acknowledged by the same process, and every element that the same client had
//! seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::lists::Lists;
use super::{Verdict, Violation};
use crate::nemesis::history::{History, Key, Moment, Process, Record, Takeover, Value};

pub(super) fn check(verdict: &mut Verdict, history: &History, lists: &Lists) {
    let appends = Appends::of(history);
    // Each duplicate is counted once, and stored ones have been counted.
    let mut repeated: HashSet<Value> =
        lists.places().filter(|(_, place)| place.count > 1).map(|(value, _)| value).collect();
    let told = Told::of(history, lists, &appends);
    let mut seen: HashMap<(usize, Process, Key), usize> = HashMap::new();
    let mut reads: Vec<_> =
        history.records.iter().filter(|record| record.read().is_some()).collect();
    reads.sort_by_key(|record| record.invoked);
    for record in reads {
        let Some((key, values)) = record.read() else { continue };
        appends.check_known(verdict, record, key, values);
        once(verdict, &mut repeated, record, values);
        let Some(length) = beginning(lists, &appends, key, values) else {
            verdict
                .find(Violation::Disordered, || format!("not a prefix of list {key}: {record:?}"));
            continue;
        };
        let process = record.process();
        let written = told.before(process, key, record.invoked);
        let before = seen.entry((record.client, process, key)).or_default();
        let needed = written.max(*before);
        if length < needed {
            let next = lists.list(key).get(length).map(|row| row.value);
            verdict.find(Violation::StaleRead, || {
                format!(
                    "{length} elements where {needed} were known ({written} written, {before} \
                     seen), without {next:?}: {record:?}"
                )
            });
        }
        *before = needed.max(length);
    }
}

/// How many elements of a list were seen, if they are a prefix of it; elements that are missing at
/// the end do not count.
fn beginning(lists: &Lists, appends: &Appends<'_>, key: Key, values: &[Value]) -> Option<usize> {
    let stays = |value: &Value| {
        lists.place(*value).is_some_and(|place| place.key == key)
            && !appends.floating.contains(value)
    };
    let mut all = lists.list(key).iter().enumerate().filter(|(_, row)| stays(&row.value));
    let mut length = 0;
    let mut met = HashSet::new();
    for value in values.iter().filter(|value| stays(value) && met.insert(**value)) {
        let (index, row) = all.next()?;
        if row.value != *value {
            return None;
        }
        length = index + 1;
    }
    Some(length)
}

/// A read sees no element twice.
fn once(verdict: &mut Verdict, repeated: &mut HashSet<Value>, read: &Record, values: &[Value]) {
    let mut met = HashSet::new();
    for value in values {
        if !met.insert(*value) && repeated.insert(*value) {
            verdict.find(Violation::Duplicated, || format!("{value} seen twice by {read:?}"));
        }
    }
}

/// Every append by its value.
struct Appends<'a> {
    records: HashMap<Value, (Key, &'a Record)>,
    /// Appends under way during a failover. They may be seen before it, lost by it, and applied
    /// again behind others.
    floating: HashSet<Value>,
}

impl<'a> Appends<'a> {
    fn of(history: &'a History) -> Self {
        let mut records = HashMap::new();
        let mut floating = HashSet::new();
        for record in &history.records {
            let meets = |takeover: &Takeover| {
                record.invoked <= takeover.ended && record.completed >= takeover.began
            };
            let floats = history.takeovers.iter().any(meets);
            for (key, value) in record.op.appends() {
                records.insert(value, (key, record));
                if floats {
                    floating.insert(value);
                }
            }
        }
        Self { records, floating }
    }

    /// A read sees no element that was not appended before, or that was refused.
    fn check_known(&self, verdict: &mut Verdict, read: &Record, key: Key, values: &[Value]) {
        for value in values {
            match self.records.get(value) {
                Some((of, append)) if *of == key && append.invoked <= read.completed => {
                    if append.is_refused() {
                        verdict.find(Violation::RefusedApplied, || {
                            format!("{append:?} was seen by {read:?}")
                        });
                    }
                }
                _ => verdict.find(Violation::Invented, || {
                    format!("{value} in list {key}, seen by {read:?}")
                }),
            }
        }
    }
}

/// The acknowledged appends of each process.
struct Told(HashMap<(Process, Key), BTreeMap<Moment, usize>>);

impl Told {
    fn of(history: &History, lists: &Lists, appends: &Appends<'_>) -> Self {
        let mut told: HashMap<_, BTreeMap<Moment, usize>> = HashMap::new();
        for record in history.records.iter().filter(|record| record.is_done()) {
            for (key, value) in record.op.appends() {
                let place = lists.place(value).filter(|_| !appends.floating.contains(&value));
                if let Some(place) = place.filter(|place| place.key == key) {
                    let length = told
                        .entry((record.process(), key))
                        .or_default()
                        .entry(record.completed)
                        .or_default();
                    *length = (place.index + 1).max(*length);
                }
            }
        }
        // For each moment the longest prefix that was known by then.
        for lengths in told.values_mut() {
            let mut longest = 0;
            for length in lengths.values_mut() {
                longest = longest.max(*length);
                *length = longest;
            }
        }
        Self(told)
    }

    /// The length of the prefix of the list that the process knew before `moment`.
    fn before(&self, process: Process, key: Key, moment: Moment) -> usize {
        let lengths = self.0.get(&(process, key));
        lengths
            .and_then(|lengths| lengths.range(..moment).next_back())
            .map_or(0, |(_, length)| *length)
    }
}
