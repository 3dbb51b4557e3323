//! One faulty history of each kind: the checker must find the violation and no other.

use super::*;
use std::collections::HashMap;

use crate::nemesis::history::{Moment, Op, Outcome, Receipt, Record, Row, Takeover, Value};
use crate::nemesis::losses::{Losses, PossibleLoss};

const KEY: i64 = 1;

fn done(seen: &[Value]) -> Outcome {
    Outcome::Done { seen: seen.to_vec(), receipt: None }
}

fn refused() -> Outcome {
    Outcome::Refused { why: String::new() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: String::new() }
}

fn append(value: Value) -> Op {
    Op::Append { key: KEY, value }
}

/// What the process reported about its `at`th operation, which it forwarded.
fn receipt(at: usize) -> Receipt {
    Receipt { txid: at as u64, position: at.to_string(), request: Some(at.to_string()) }
}

/// Client 0 on node 0; each operation takes 5 of its ten moments.
fn records(ops: Vec<(Op, Outcome)>) -> Vec<Record> {
    let record = |(at, (op, mut outcome)): (usize, _)| {
        let invoked = 10 * at as Moment;
        if let Outcome::Done { receipt: empty, .. } = &mut outcome {
            *empty = Some(receipt(at));
        }
        Record { client: 0, node: 0, incarnation: 1, invoked, completed: invoked + 5, op, outcome }
    };
    ops.into_iter().enumerate().map(record).collect()
}

fn rows(values: &[Value]) -> Vec<Row> {
    values.iter().map(|value| Row { key: KEY, value: *value, seen: None }).collect()
}

fn history(ops: Vec<(Op, Outcome)>, values: &[Value]) -> History {
    let finals = vec![("a".to_owned(), rows(values)), ("b".to_owned(), rows(values))];
    History { records: records(ops), takeovers: Vec::new(), finals }
}

fn found(history: &History) -> Vec<(Violation, u64)> {
    found_with(history, &Losses::default())
}

fn found_with(history: &History, losses: &Losses) -> Vec<(Violation, u64)> {
    let verdict = check(history, losses);
    let counts = Violation::ALL.into_iter().map(|wrong| (wrong, verdict.count(wrong)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_correct_history_has_no_findings() {
    let ops = vec![
        (append(1), done(&[])),
        (append(2), refused()),
        (append(3), unknown()),
        (append(4), unknown()),
        (Op::Read { key: KEY }, done(&[1, 3])),
        (Op::Batch { items: vec![(KEY, 5), (KEY, 6)] }, done(&[])),
        (Op::Read { key: KEY }, done(&[1, 3, 5, 6])),
    ];
    assert_eq!(found(&history(ops, &[1, 3, 5, 6])), []);
}

#[test]
fn a_missing_acknowledged_append_is_lost() {
    let history = history(vec![(append(1), done(&[])), (append(2), done(&[]))], &[1]);
    assert_eq!(found(&history), [(Violation::LostUnreported, 1)]);
}

#[test]
fn a_reported_loss_is_counted_and_not_a_finding() {
    let history = history(vec![(append(1), done(&[])), (append(2), done(&[]))], &[1]);
    let losses = Losses::default();
    losses.reports.add((0, 1), [receipt(1)]);
    assert_eq!(found_with(&history, &losses), []);
    assert_eq!(check(&history, &losses).lost_reported, 1);
}

#[test]
fn an_excused_loss_is_counted_separately() {
    let history = history(vec![(append(1), done(&[])), (append(2), done(&[]))], &[1]);
    let possible_losses = vec![PossibleLoss { began: 20, until: 30, kept: 0, node: None }];
    let killed =
        Losses { possible_losses, ends: HashMap::from([((0, 1), 31)]), ..Losses::default() };
    assert_eq!(found_with(&history, &killed), []);
    let verdict = check(&history, &killed);
    assert_eq!((verdict.lost_reported, verdict.lost_excused), (0, 1));
    assert_eq!(
        found_with(&history, &Losses { ends: HashMap::new(), ..killed }),
        [(Violation::LostUnreported, 1)]
    );
}

#[test]
fn a_present_append_reported_as_lost_is_a_false_report() {
    let mut history = history(vec![(append(1), done(&[]))], &[1]);
    let losses = Losses::default();
    losses.reports.add((0, 1), [receipt(0)]);
    assert_eq!(found_with(&history, &losses), [(Violation::FalselyReported, 1)]);
    let unnamed = Receipt { request: None, ..receipt(0) };
    losses.reports.add((0, 1), [unnamed.clone()]);
    history.records[0].outcome = Outcome::Done { seen: Vec::new(), receipt: Some(unnamed) };
    assert_eq!(found_with(&history, &losses), [], "another write may have shared its position");
}

#[test]
fn an_append_that_is_stored_twice_is_duplicated() {
    for outcome in [done(&[]), unknown()] {
        assert_eq!(
            found(&history(vec![(append(1), outcome)], &[1, 1])),
            [(Violation::Duplicated, 1)]
        );
    }
}

#[test]
fn a_duplicate_seen_by_a_read_only_is_found() {
    let ops = vec![(append(1), unknown()), (Op::Read { key: KEY }, done(&[1, 1]))];
    assert_eq!(found(&history(ops, &[])), [(Violation::Duplicated, 1)]);
}

#[test]
fn a_duplicate_is_counted_once_however_many_reads_see_it() {
    let read = || (Op::Read { key: KEY }, done(&[1, 1]));
    let transaction = Op::ReadThenAppend { key: KEY, value: 2, with_retry: false };
    let ops = vec![(append(1), unknown()), read(), read(), (transaction, done(&[1, 1]))];
    let mut history = history(ops, &[1, 1, 2]);
    for (_, rows) in &mut history.finals {
        rows[2].seen = Some(2);
    }
    assert_eq!(found(&history), [(Violation::Duplicated, 1)]);
}

#[test]
fn a_refused_append_must_not_be_stored_or_seen() {
    assert_eq!(
        found(&history(vec![(append(1), refused())], &[1])),
        [(Violation::RefusedApplied, 1)]
    );
    let ops = vec![(append(1), refused()), (Op::Read { key: KEY }, done(&[1]))];
    assert_eq!(found(&history(ops, &[])), [(Violation::RefusedApplied, 1)]);
}

#[test]
fn an_element_without_an_append_is_invented() {
    assert_eq!(found(&history(Vec::new(), &[7])), [(Violation::Invented, 1)]);
    let ops = vec![(Op::Read { key: KEY }, done(&[7]))];
    assert_eq!(found(&history(ops, &[])), [(Violation::Invented, 1)]);
}

#[test]
fn a_partly_stored_batch_is_torn() {
    let batch = Op::Batch { items: vec![(KEY, 1), (KEY, 2)] };
    assert_eq!(found(&history(vec![(batch, unknown())], &[1])), [(Violation::Torn, 1)]);
}

#[test]
fn a_read_that_misses_its_clients_write_is_stale() {
    let ops = vec![(append(1), done(&[])), (Op::Read { key: KEY }, done(&[]))];
    assert_eq!(found(&history(ops, &[1])), [(Violation::StaleRead, 1)]);
}

#[test]
fn a_read_that_misses_its_processs_write_is_stale() {
    let mut history =
        history(vec![(append(1), done(&[])), (Op::Read { key: KEY }, done(&[]))], &[1]);
    history.records[1].client = 1;
    assert_eq!(found(&history), [(Violation::StaleRead, 1)]);
    history.records[1].invoked = 4;
    assert_eq!(found(&history), [], "the read began before the acknowledgement");
    history.records[1].invoked = 10;
    history.records[1].incarnation = 2;
    assert_eq!(found(&history), [], "another process has not acknowledged it");
}

#[test]
fn a_read_behind_an_earlier_read_is_stale() {
    let ops = vec![
        (append(1), unknown()),
        (Op::Read { key: KEY }, done(&[1])),
        (Op::Read { key: KEY }, done(&[])),
        (Op::Read { key: KEY }, done(&[])),
    ];
    assert_eq!(found(&history(ops, &[1])), [(Violation::StaleRead, 2)]);
}

#[test]
fn writes_lost_in_a_failover_need_not_be_seen_again() {
    let ops = vec![
        (append(1), unknown()),
        (Op::Read { key: KEY }, done(&[1])),
        (append(2), done(&[])),
        (Op::Read { key: KEY }, done(&[2])),
    ];
    assert_eq!(found(&history(ops, &[2])), []);
}

#[test]
fn appends_under_way_in_a_failover_may_be_reordered() {
    let ops = vec![
        (append(1), done(&[])),
        (append(2), done(&[])),
        (Op::Read { key: KEY }, done(&[2, 1])),
    ];
    let mut history = history(ops, &[2, 1]);
    let mut early = history.records[2].clone();
    (early.client, early.invoked, early.completed) = (1, 1, 2);
    early.outcome = done(&[1]);
    history.records.push(early);
    history.records[1].client = 2;
    assert_eq!(found(&history), [(Violation::Disordered, 1)]);
    history.takeovers.push(Takeover { began: 3, ended: 4 });
    assert_eq!(found(&history), []);
}

#[test]
fn a_list_seen_in_another_order_or_with_a_gap_is_disordered() {
    let appends = || vec![(append(1), unknown()), (append(2), unknown()), (append(3), unknown())];
    for seen in [&[2, 1][..], &[1, 3], &[2]] {
        let ops = appends().into_iter().chain([(Op::Read { key: KEY }, done(seen))]).collect();
        assert_eq!(found(&history(ops, &[1, 2, 3])), [(Violation::Disordered, 1)], "{seen:?}");
    }
}

#[test]
fn acknowledged_appends_of_one_client_stay_in_order() {
    let history = history(vec![(append(1), done(&[])), (append(2), done(&[]))], &[2, 1]);
    assert_eq!(found(&history), [(Violation::Disordered, 1)]);
}

#[test]
fn a_transaction_appends_to_the_list_it_has_read() {
    let op = Op::ReadThenAppend { key: KEY, value: 2, with_retry: false };
    let mut history = history(vec![(append(1), unknown()), (op, done(&[]))], &[1, 2]);
    for (_, rows) in &mut history.finals {
        rows[1].seen = Some(0);
    }
    assert_eq!(found(&history), [(Violation::Disordered, 1)]);
}

#[test]
fn nodes_that_differ_are_found() {
    let mut history = history(vec![(append(1), done(&[]))], &[1]);
    history.finals[1].1.clear();
    assert_eq!(found(&history), [(Violation::Differing, 1)]);
}

#[test]
fn panics_and_hangs_are_found() {
    let panic = Outcome::Unknown { why: "PANIC: 500".into() };
    assert_eq!(found(&history(vec![(append(1), panic)], &[])), [(Violation::Broken, 1)]);
}
