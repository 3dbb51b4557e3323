//! Checks on the presence and order of each append.

use std::collections::{HashMap, HashSet};

use super::lists::Lists;
use super::{Verdict, Violation};
use crate::nemesis::history::{History, Key, Outcome, Record, Value};
use crate::nemesis::losses::LossReports;

pub(super) fn check(
    verdict: &mut Verdict,
    history: &History,
    lists: &Lists,
    losses: &dyn LossReports,
) {
    for record in &history.records {
        broken(verdict, record);
        fate(verdict, record, lists, losses);
        falsely_reported(verdict, record, lists, losses);
    }
    known(verdict, history, lists);
    repeated(verdict, lists);
    acknowledged_in_order(verdict, history, lists);
    read_before_append(verdict, lists);
}

fn broken(verdict: &mut Verdict, record: &Record) {
    if let Outcome::Unknown { why } = &record.outcome
        && (why.starts_with("PANIC") || why.starts_with("HANG"))
    {
        verdict.find(Violation::Broken, || format!("{why}: {record:?}"));
    }
}

/// Acknowledged appends are present, or their loss was reported; refused ones are absent; a batch
/// is present as a whole or not at all.
fn fate(verdict: &mut Verdict, record: &Record, lists: &Lists, losses: &dyn LossReports) {
    let appends = record.op.appends();
    let there =
        |(key, value): &&(Key, Value)| lists.place(*value).is_some_and(|place| place.key == *key);
    let present = appends.iter().filter(there).count();
    let absent = appends.len() - present;
    if present > 0 && absent > 0 {
        verdict.find(Violation::Torn, || {
            format!("{present} of {} are present: {record:?}", appends.len())
        });
    }
    if record.is_refused() && present > 0 {
        verdict.find(Violation::RefusedApplied, || format!("{record:?}"));
    }
    if record.is_done() && absent > 0 {
        if losses.report(record) {
            verdict.lost_reported += absent as u64;
        } else if losses.excuse(record) {
            verdict.lost_excused += absent as u64;
        } else {
            (0..absent)
                .for_each(|_| verdict.find(Violation::LostUnreported, || format!("{record:?}")));
        }
    }
}

/// A write that was reported as lost is absent. A write on the primary's own file has no id: it is
/// identified by the position after it, and several writes may share a position; then one of them
/// is lost, but it is unknown which.
fn falsely_reported(
    verdict: &mut Verdict,
    record: &Record,
    lists: &Lists,
    losses: &dyn LossReports,
) {
    let named = record.receipt().is_some_and(|receipt| receipt.request.is_some());
    let there = record.op.appends().iter().any(|(_, value)| lists.place(*value).is_some());
    if named && there && losses.report(record) {
        verdict.find(Violation::FalselyReported, || format!("{record:?}"));
    }
}

/// Every element was appended by a client, to that list.
fn known(verdict: &mut Verdict, history: &History, lists: &Lists) {
    let appended: HashSet<(Key, Value)> =
        history.records.iter().flat_map(|record| record.op.appends()).collect();
    for (value, place) in
        lists.places().filter(|(value, place)| !appended.contains(&(place.key, *value)))
    {
        verdict.find(Violation::Invented, || format!("{value} in list {}", place.key));
    }
}

fn repeated(verdict: &mut Verdict, lists: &Lists) {
    for (value, place) in lists.places() {
        (1..place.count).for_each(|_| {
            verdict.find(Violation::Duplicated, || {
                format!("{value} occurs {} times in list {}", place.count, place.key)
            });
        });
    }
}

/// The sequential appends of one client are stored in their order.
fn acknowledged_in_order(verdict: &mut Verdict, history: &History, lists: &Lists) {
    let mut done: Vec<_> = history.records.iter().filter(|record| record.is_done()).collect();
    done.sort_by_key(|record| record.invoked);
    let mut last: HashMap<(usize, Key), (usize, Value)> = HashMap::new();
    for record in done {
        for (key, value) in record.op.appends() {
            let Some(place) = lists.place(value) else { continue };
            let before = last.insert((record.client, key), (place.index, value));
            if let Some((index, earlier)) = before.filter(|(index, _)| *index > place.index) {
                verdict.find(Violation::Disordered, || {
                    format!(
                        "in list {key} {earlier} at {index} was acknowledged before {value} at {}",
                        place.index
                    )
                });
            }
        }
    }
}

/// A transaction's append follows directly on what the transaction had read.
fn read_before_append(verdict: &mut Verdict, lists: &Lists) {
    for (key, list) in lists.stored() {
        for (index, row) in list.iter().enumerate() {
            if row.seen.is_some_and(|seen| usize::try_from(seen) != Ok(index)) {
                verdict.find(Violation::Disordered, || {
                    format!(
                        "{} is at {index} of list {key}, but had read {:?} elements",
                        row.value, row.seen
                    )
                });
            }
        }
    }
}
