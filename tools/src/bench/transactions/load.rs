//! Many callers on two replicas, beside the writes of a third.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use litefs_examples::Problem;
use litefs_examples::stats::{median, percentile};

use super::nodes::Nodes;
use super::work::{Form, short};
use crate::bench::items;
use crate::bench::report::Report;
use crate::bench::rounds::{Effort, Turn, alternate, ratio};

const ROUNDS: usize = 8;
/// The length of a round.
const TIME: Duration = Duration::from_millis(1_500);
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// Callers of each of the two replicas. Sessions exclude each other, so that more callers would
/// only wait longer.
const CALLERS: i32 = 16;
const SESSION_CALLERS: i32 = 1;
/// Callers of the third replica, each with INSERTs.
const INSERTERS: i32 = 4;

/// One round.
struct Sample {
    /// Transactions per second.
    transactions: f64,
    /// The 99th percentile of the INSERTs, in milliseconds.
    insert_p99: f64,
    /// The same of the transactions.
    p99: f64,
    /// Round trips per transaction.
    trips: f64,
}

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let nodes = Nodes::start(&["first", "second", "third"])?;
    nodes.set_round_trip(ROUND_TRIP)?;
    let time = effort.time(TIME);
    let mut turns: [Turn<'_, Sample>; 3] = [
        Box::new(|| round(&nodes, Form::Plain, 0, time)),
        Box::new(|| round(&nodes, Form::Plain, CALLERS, time)),
        Box::new(|| round(&nodes, Form::Session, SESSION_CALLERS, time)),
    ];
    let rounds = alternate(1, effort.rounds(ROUNDS), &mut turns)?;
    let of = |turn: usize, figure: fn(&Sample) -> f64| -> Vec<f64> {
        rounds[turn].iter().map(figure).collect()
    };
    let mut rates = of(1, |sample| sample.transactions);
    report.add(
        "load_transactions",
        median(&mut rates),
        "1/s",
        "32 callers of two replicas, one read and two updates, 20 ms; at least 500",
    )?;
    report.add(
        "load_vs_sessions_ratio",
        ratio(&of(1, |sample| sample.transactions), &of(2, |sample| sample.transactions)),
        "ratio",
        "the same / in sessions, which exclude each other",
    )?;
    report.add("load_p99", median(&mut of(1, |sample| sample.p99)), "ms", "their latency")?;
    report.add(
        "load_round_trips",
        median(&mut of(1, |sample| sample.trips)),
        "ratio",
        "their round trips",
    )?;
    report.add(
        "load_insert_p99_ratio",
        ratio(&of(1, |sample| sample.insert_p99), &of(0, |sample| sample.insert_p99)),
        "ratio",
        "INSERTs of a third replica beside them / without them, at most 2",
    )?;
    report.add(
        "load_insert_p99_sessions_ratio",
        ratio(&of(2, |sample| sample.insert_p99), &of(0, |sample| sample.insert_p99)),
        "ratio",
        "the same beside sessions",
    )?;
    let mut alone = of(0, |sample| sample.insert_p99);
    Ok(report.add("load_insert_p99", median(&mut alone), "ms", "without them")?)
}

/// Runs transactions on two replicas and INSERTs on the third.
fn round(nodes: &Nodes, form: Form, callers: i32, time: Duration) -> Result<Sample, Problem> {
    let start = Barrier::new(usize::try_from(2 * callers + INSERTERS + 1)?);
    let (start, made) =
        (&start, || nodes.replica(0).round_trips() + nodes.replica(1).round_trips());
    let before = made();
    std::thread::scope(|scope| {
        let mut transactions = Vec::new();
        for number in 0..2 * callers {
            let mut conn = nodes.replica(usize::from(number >= callers)).establish()?;
            let work = move || Ok(form.run(&mut conn, number, short)?);
            transactions.push(move || repeat(start, time, work));
        }
        let mut inserters = Vec::new();
        for _ in 0..INSERTERS {
            let mut conn = nodes.replica(2).establish()?;
            let mut work = move || Ok(items::insert(&mut conn, "item", items::PAYLOAD).map(drop)?);
            // The first one of a connection looks up what is remembered later.
            work()?;
            inserters.push(move || repeat(start, time, work));
        }
        // No thread waits for one that could not be started.
        let transactions: Vec<_> = transactions.into_iter().map(|t| scope.spawn(t)).collect();
        let inserters: Vec<_> = inserters.into_iter().map(|i| scope.spawn(i)).collect();
        start.wait();
        let started = Instant::now();
        let mut latencies = join(transactions)?;
        let elapsed = started.elapsed().as_secs_f64();
        let trips = (made() - before) as f64 / latencies.len().max(1) as f64;
        let mut inserts = join(inserters)?;
        Ok(Sample {
            transactions: latencies.len() as f64 / elapsed,
            insert_p99: percentile(&mut inserts, 0.99),
            p99: percentile(&mut latencies, 0.99),
            trips,
        })
    })
}

type Timings<'scope> = std::thread::ScopedJoinHandle<'scope, Result<Vec<f64>, Problem>>;

fn join(threads: Vec<Timings<'_>>) -> Result<Vec<f64>, Problem> {
    let mut all = Vec::new();
    for thread in threads {
        all.append(&mut thread.join().map_err(|_| "a caller panicked")??);
    }
    Ok(all)
}

/// The duration of each run, in milliseconds.
fn repeat(
    start: &Barrier,
    time: Duration,
    mut work: impl FnMut() -> Result<(), Problem>,
) -> Result<Vec<f64>, Problem> {
    start.wait();
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(times)
}
