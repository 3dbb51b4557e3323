//! Transactions of a replica while the primary writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_examples::Problem;

use super::nodes::Nodes;
use super::work::{Form, SHARED, UNRELATED, count, increment, set, short};
use crate::bench::report::Report;
use crate::bench::rounds::Effort;

const CALLERS: i32 = 4;
/// The length of a measurement.
const TIME: Duration = Duration::from_secs(3);
/// The pauses between two commits of the primary.
const UNRELATED_PAUSE: Duration = Duration::from_millis(5);
const SHARED_PAUSE: Duration = Duration::from_millis(50);

/// How transactions ended at their first try.
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    all: u64,
    conflicts: u64,
    /// Conflicts although what was read has not changed.
    unjustified: u64,
}

impl Tries {
    fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, more| Self {
            all: sum.all + more.all,
            conflicts: sum.conflicts + more.conflicts,
            unjustified: sum.unjustified + more.unjustified,
        })
    }

    /// The share that succeeded, in per cent.
    fn succeeded(self) -> f64 {
        100.0 * (self.all - self.conflicts) as f64 / self.all.max(1) as f64
    }
}

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let (nodes, time) = (Nodes::start(&["replica"])?, effort.time(TIME));
    for (round_trip, name) in [(0, "first_try_0ms"), (10, "first_try_10ms"), (40, "first_try_40ms")]
    {
        nodes.set_round_trip(Duration::from_millis(round_trip))?;
        let writer = Writer { counter: UNRELATED, pause: UNRELATED_PAUSE };
        let (tries, _) = writer.beside(&nodes, |number| unrelated(&nodes, number, time))?;
        report.add(
            name,
            Tries::sum(tries).succeeded(),
            "%",
            "transactions that succeed at once beside a commit each 5 ms, at least 99",
        )?;
    }
    shared_row(report, &nodes, time)
}

/// Transactions that change a row that the primary changes too, beside some that do not.
fn shared_row(report: &mut Report, nodes: &Nodes, time: Duration) -> Result<(), Problem> {
    nodes.set_round_trip(Duration::from_millis(10))?;
    let mut conn = nodes.primary()?;
    let before = count(&mut conn, SHARED)?;
    let writer = Writer { counter: SHARED, pause: SHARED_PAUSE };
    let (tries, written) = writer.beside(nodes, |number| {
        if number % 2 == 0 { shared(nodes, time) } else { unrelated(nodes, number, time) }
    })?;
    let of = |rest: usize| Tries::sum(tries.iter().copied().skip(rest).step_by(2));
    let (shared, others) = (of(0), of(1));
    let expected = before + written + i64::try_from(shared.all - shared.conflicts)?;
    let found = count(&mut conn, SHARED)?;
    if found != expected {
        return Err(format!("the counter is {found}, not {expected}: an update is lost").into());
    }
    report.add("shared_first_try", shared.succeeded(), "%", "with a row that others change")?;
    report.add(
        "shared_unjustified",
        shared.unjustified as f64,
        "",
        "their conflicts without a change of the row: 0",
    )?;
    Ok(report.add("shared_others", others.succeeded(), "%", "transactions beside them: 100")?)
}

/// A writer on the primary.
#[derive(Debug, Clone, Copy)]
struct Writer {
    counter: i32,
    pause: Duration,
}

impl Writer {
    /// Writes while the callers run. Returns their results and the number of writes.
    fn beside(
        self,
        nodes: &Nodes,
        caller: impl Fn(i32) -> Result<Tries, Problem> + Sync,
    ) -> Result<(Vec<Tries>, i64), Problem> {
        let (over, caller) = (AtomicBool::new(false), &caller);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| self.write(nodes, &over));
            let callers: Vec<_> =
                (0..CALLERS).map(|number| scope.spawn(move || caller(number))).collect();
            let tries: Result<Vec<_>, Problem> = callers
                .into_iter()
                .map(|caller| caller.join().map_err(|_| "a caller panicked")?)
                .collect();
            over.store(true, Ordering::Relaxed);
            Ok((tries?, writer.join().map_err(|_| "the writer panicked")??))
        })
    }

    fn write(self, nodes: &Nodes, over: &AtomicBool) -> Result<i64, Problem> {
        let (mut conn, mut written) = (nodes.primary()?, 0);
        while !over.load(Ordering::Relaxed) {
            increment(&mut conn, self.counter)?;
            written += 1;
            std::thread::sleep(self.pause);
        }
        Ok(written)
    }
}

/// Transactions with rows of their own.
fn unrelated(nodes: &Nodes, number: i32, time: Duration) -> Result<Tries, Problem> {
    let (mut conn, started) = (nodes.replica(0).establish()?, Instant::now());
    let mut tries = Tries::default();
    while started.elapsed() < time {
        tries.all += 1;
        tries.conflicts += u64::from(is_conflict(Form::Plain.run(&mut conn, number, short))?);
    }
    Ok(tries)
}

/// Transactions that read the counter and set it to one more.
fn shared(nodes: &Nodes, time: Duration) -> Result<Tries, Problem> {
    let (mut conn, started) = (nodes.replica(0).establish()?, Instant::now());
    let (mut primary, mut tries) = (nodes.primary()?, Tries::default());
    while started.elapsed() < time {
        tries.all += 1;
        let mut seen = 0;
        let result = conn.transaction(|conn: &mut LiteFsConnection| {
            seen = count(conn, SHARED)?;
            set(conn, SHARED, seen + 1)
        });
        if is_conflict(result)? {
            tries.conflicts += 1;
            // The counter only grows.
            tries.unjustified += u64::from(count(&mut primary, SHARED)? == seen);
        }
    }
    Ok(tries)
}

fn is_conflict(result: QueryResult<()>) -> Result<bool, Problem> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if Failure::of(&error) == Some(Failure::SnapshotMoved) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
