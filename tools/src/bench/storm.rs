//! Many concurrent callers.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use litefs_examples::Problem;
use litefs_examples::stats::{median, percentile};

/// The results of one period with many callers.
pub(super) struct Sample {
    /// Calls per second of all callers.
    pub(super) throughput: f64,
    /// The duration of each call in microseconds.
    latencies: Vec<f64>,
    /// The 99th percentile of the slowest caller, in microseconds. A starved caller makes few
    /// calls, which would not show among the calls of all callers.
    pub(super) worst_p99: f64,
}

/// The results of several such periods.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    /// Calls per second: the median of the rounds.
    pub(super) throughput: f64,
    /// Durations in microseconds, of the calls of all rounds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Summary {
    pub(super) fn of(rounds: &[Sample]) -> Self {
        let mut latencies: Vec<f64> =
            rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
        Self {
            throughput: median(&mut throughputs(rounds)),
            p50: percentile(&mut latencies, 0.5),
            p99: percentile(&mut latencies, 0.99),
        }
    }
}

/// The throughput of each round.
pub(super) fn throughputs(rounds: &[Sample]) -> Vec<f64> {
    rounds.iter().map(|round| round.throughput).collect()
}

/// The 99th percentile of the slowest caller of each round, in microseconds.
pub(super) fn p99s(rounds: &[Sample]) -> Vec<f64> {
    rounds.iter().map(|round| round.worst_p99).collect()
}

/// Lets each caller call repeatedly on its own thread until `time` is over. A call returns the
/// number of rows that it has inserted, which must be one.
pub(super) fn storm<C>(callers: Vec<C>, time: Duration) -> Result<Sample, Problem>
where
    C: FnMut() -> Result<u64, Problem> + Send,
{
    let start = Barrier::new(callers.len() + 1);
    let begin = &start;
    std::thread::scope(|scope| {
        let threads: Vec<_> = callers
            .into_iter()
            .map(|caller| scope.spawn(move || call(caller, begin, time)))
            .collect();
        start.wait();
        let started = Instant::now();
        let (mut latencies, mut worst_p99) = (Vec::new(), 0.0_f64);
        for thread in threads {
            let mut own = thread.join().map_err(|_| "a caller panicked")??;
            worst_p99 = worst_p99.max(percentile(&mut own, 0.99));
            latencies.append(&mut own);
        }
        let throughput = latencies.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Sample { throughput, latencies, worst_p99 })
    })
}

fn call<C>(mut caller: C, begin: &Barrier, time: Duration) -> Result<Vec<f64>, Problem>
where
    C: FnMut() -> Result<u64, Problem>,
{
    begin.wait();
    let started = Instant::now();
    let (mut latencies, mut before) = (Vec::new(), Duration::ZERO);
    while before < time {
        match caller()? {
            1 => {}
            rows => return Err(format!("inserted {rows} rows, not one").into()),
        }
        let after = started.elapsed();
        latencies.push((after - before).as_nanos() as f64 / 1_000.0);
        before = after;
    }
    Ok(latencies)
}
