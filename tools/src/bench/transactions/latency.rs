//! One caller: the round trips and the time of a transaction.

use std::time::{Duration, Instant};

use litefs_diesel::LiteFsConnection;
use litefs_examples::Problem;
use litefs_examples::stats::median;

use super::nodes::Nodes;
use super::work::{Form, Work, long, short};
use crate::bench::report::Report;
use crate::bench::rounds::{Effort, Turn, alternate, ratio};

const ROUNDS: usize = 20;
/// Transactions of one kind in a round.
const SLOW_TRANSACTIONS: i32 = 5;
const FAST_TRANSACTIONS: i32 = 100;
const SLOW: Duration = Duration::from_millis(20);

/// What one transaction of a round took, in milliseconds and in round trips.
#[derive(Debug, Clone, Copy)]
struct Cost {
    time: f64,
    trips: f64,
}

/// The names and the meanings of the figures of one kind of transaction.
struct Names {
    work: Work,
    trips: [&'static str; 2],
    slow: [&'static str; 2],
    fast: [&'static str; 2],
    took: &'static str,
}

const KINDS: [Names; 2] = [
    Names {
        work: short,
        trips: ["short_round_trips", "one read, two updates, 20 ms, at most 1.15"],
        slow: ["short_20ms_ratio", "its time at 20 ms / in a session"],
        fast: ["short_0ms_ratio", "the same at 0 ms, at most 1"],
        took: "short_0ms",
    },
    Names {
        work: long,
        trips: ["long_round_trips", "two reads, five writes, 20 ms, at most 1.15"],
        slow: ["long_20ms_ratio", "its time at 20 ms / in a session"],
        fast: ["long_0ms_ratio", "the same at 0 ms, at most 1"],
        took: "long_0ms",
    },
];

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let nodes = Nodes::start(&["replica"])?;
    for Names { work, trips, slow, fast, took } in KINDS {
        nodes.set_round_trip(SLOW)?;
        let [ours, sessions] = compare(&nodes, effort, SLOW_TRANSACTIONS, work)?;
        let made = ours.iter().map(|cost| cost.trips).sum::<f64>() / ours.len() as f64;
        report.add(trips[0], made, "ratio", trips[1])?;
        report.add(slow[0], ratio(&times(&ours), &times(&sessions)), "ratio", slow[1])?;
        nodes.set_round_trip(Duration::ZERO)?;
        let [ours, sessions] = compare(&nodes, effort, FAST_TRANSACTIONS, work)?;
        report.add(fast[0], ratio(&times(&ours), &times(&sessions)), "ratio", fast[1])?;
        report.add(took, median(&mut times(&ours)) * 1_000.0, "us", "one of these")?;
    }
    Ok(())
}

/// The costs of the plain form and of a session, by round.
fn compare(
    nodes: &Nodes,
    effort: Effort,
    count: i32,
    work: Work,
) -> Result<[Vec<Cost>; 2], Problem> {
    let turn = |form: Form| -> Result<Turn<'_, Cost>, Problem> {
        let (litefs, mut conn) = (nodes.replica(0), nodes.replica(0).establish()?);
        Ok(Box::new(move || {
            let (started, before) = (Instant::now(), litefs.round_trips());
            several(&mut conn, form, count, work)?;
            let time = started.elapsed().as_secs_f64() * 1_000.0 / f64::from(count);
            let trips = (litefs.round_trips() - before) as f64 / f64::from(count);
            Ok(Cost { time, trips })
        }))
    };
    let mut turns = [turn(Form::Plain)?, turn(Form::Session)?];
    let costs = alternate(1, effort.rounds(ROUNDS), &mut turns)?;
    costs.try_into().map_err(|_| "two forms".into())
}

fn several(conn: &mut LiteFsConnection, form: Form, count: i32, work: Work) -> Result<(), Problem> {
    Ok((0..count).try_for_each(|number| form.run(conn, number, work))?)
}

fn times(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.time).collect()
}
