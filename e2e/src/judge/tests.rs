//! The expected verdict for each kind of attempt.

use std::time::Duration;

use super::*;
use crate::wire::New;

fn acknowledged(txid: u64, answered: Instant) -> Outcome {
    Outcome::Acknowledged { row: None, txid: Some(txid), answered }
}

fn refused() -> Outcome {
    Outcome::Refused("no".into())
}

fn unknown() -> Outcome {
    Outcome::Unknown("who knows".into())
}

fn post(started: Instant, outcome: Outcome) -> Attempt {
    Attempt { started, outcome, write: Write::Post { key: "k".into() } }
}

fn set(number: u32, outcome: Outcome) -> Attempt {
    Attempt { started: Instant::now(), outcome, write: Write::Set { key: "k".into(), number } }
}

fn rows(times: usize, number: u32) -> Vec<Row> {
    (0..times).map(|id| New::row("k", number).with_id(id.to_string())).collect()
}

fn bad(attempts: &[Attempt], rows: &[Row]) -> (u64, u64, u64) {
    let judgement = Judgement::of(attempts, rows, None);
    (judgement.lost, judgement.duplicated, judgement.refused_but_there)
}

#[test]
fn a_post_is_stored_once_if_acknowledged_else_never() {
    let now = Instant::now();
    let table = [
        (acknowledged(1, now), [(1, 0, 0), (0, 0, 0), (0, 1, 0)]),
        (refused(), [(0, 0, 0), (0, 0, 1), (0, 1, 1)]),
        (unknown(), [(0, 0, 0), (0, 0, 0), (0, 1, 0)]),
    ];
    for (outcome, expected) in table {
        for (times, expected) in expected.into_iter().enumerate() {
            assert_eq!(
                bad(&[post(now, outcome.clone())], &rows(times, 0)),
                expected,
                "{outcome:?} {times}"
            );
        }
    }
}

#[test]
fn a_number_is_never_older_than_an_acknowledged_one() {
    let now = Instant::now();
    let attempts = [
        set(1, acknowledged(1, now)),
        set(2, refused()),
        set(3, acknowledged(2, now)),
        set(4, unknown()),
    ];
    for (found, expected) in [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (0, 0, 0)), (4, (0, 0, 0))] {
        assert_eq!(bad(&attempts, &rows(1, found)), expected, "{found}");
    }
}

#[test]
fn only_unshipped_writes_of_the_dead_primary_may_be_missing() {
    let second = Duration::from_secs(1);
    let started = Instant::now();
    let death =
        Death { dead_at: started + second, succeeded_at: started + 10 * second, shipped: 7 };
    let judged = |started, answered, txid| {
        let judgement =
            Judgement::of(&[post(started, acknowledged(txid, answered))], &[], Some(&death));
        (judgement.lost, judgement.lost_by_litefs)
    };
    assert_eq!(judged(started, started, 7), (1, 0), "shipped");
    assert_eq!(judged(started, started, 8), (0, 1), "not shipped");
    assert_eq!(judged(started, started + 11 * second, 8), (1, 0), "acknowledged by the successor");
    assert_eq!(
        judged(started + 2 * second, started + 3 * second, 8),
        (1, 0),
        "begun after its death"
    );
}

#[test]
fn the_text_has_every_figure_and_the_details() {
    let text = Judgement::of(&[post(Instant::now(), refused())], &rows(1, 0), None).to_string();
    assert!(
        text.contains("1 refused: 1 stored") && text.contains("k was refused and is stored"),
        "{text}"
    );
}
