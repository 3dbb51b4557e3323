//! Concurrent inserts on a replica, with and without group commit.

use std::path::Path;
use std::time::Duration;

use litefs_diesel::{ConnectionManager, LiteFs};
use litefs_examples::Problem;

use super::options::Mount;
use super::pair::Pair;
use super::plot::{self, Curve, Point};
use super::report::Report;
use super::rig::Rig;
use super::rounds::{Effort, Turn, alternate, ratio};
use super::server::{Setup, Synchronous};
use super::storm::{Sample, Summary, storm, throughputs};
use super::{bare, items};

const ROUNDS: usize = 18;
const WARM_UP: usize = 2;
/// The length of a round. Rounds are short, so that a disturbance spoils few of them.
const TIME: Duration = Duration::from_millis(200);
/// The number of callers for the figures.
const CALLERS: usize = 64;
/// The numbers of callers in the curve.
const CURVE: [usize; 5] = [1, 4, 16, CALLERS, 256];
/// The delay of a commit on a slow disk, or through FUSE.
const SLOW_COMMIT: Duration = Duration::from_millis(1);

/// One primary with group commit and one without, and the bare servers.
struct Rivals {
    grouped: Inserters,
    single: Inserters,
    echo: bare::Caller,
    // Declared after the handles, so that it is dropped after them.
    rig: Rig,
    without: Pair,
}

/// Callers on a replica, each with a connection of the pool.
struct Inserters(r2d2::Pool<ConnectionManager>);

/// The results for one number of callers.
struct Outcome {
    callers: usize,
    grouped: Vec<Sample>,
    single: Vec<Sample>,
    echo: Vec<Sample>,
}

pub(super) fn run(
    report: &mut Report,
    effort: Effort,
    mount: Option<&Mount>,
    plot: Option<&Path>,
) -> Result<(), Problem> {
    if let Some(mount) = mount {
        return on_mount(report, effort, mount);
    }
    let normal = Rivals::start(Synchronous::Normal)?;
    let curve = CURVE
        .iter()
        .map(|callers| normal.measure(effort, *callers))
        .collect::<Result<Vec<_>, _>>()?;
    add_figures(
        report,
        curve.iter().find(|outcome| outcome.callers == CALLERS).ok_or("no outcome")?,
    )?;
    if let Some(file) = plot {
        draw(file, &curve)?;
    }
    normal.slow(SLOW_COMMIT)?;
    let slow = normal.measure(effort, CALLERS)?;
    drop(normal);
    let full = Rivals::start(Synchronous::Full)?.measure(effort, CALLERS)?;
    report.add(
        "group_1ms_ratio",
        slow.gain(),
        "ratio",
        "the same with commits that take 1 ms more, at least 28",
    )?;
    report.add(
        "group_full_ratio",
        full.gain(),
        "ratio",
        "the same with synchronous = FULL, at least 9",
    )?;
    let (slow, full) = (Summary::of(&slow.grouped), Summary::of(&full.grouped));
    report.add(
        "group_1ms_throughput",
        slow.throughput,
        "1/s",
        "with group commit, commits of 1 ms",
    )?;
    Ok(report.add("group_full_throughput", full.throughput, "1/s", "with group commit, FULL")?)
}

impl Rivals {
    fn start(synchronous: Synchronous) -> Result<Self, Problem> {
        let setup = Setup::embedded(synchronous);
        let (rig, without) = (Rig::start(None, &setup)?, Pair::litefs(&setup.ungrouped())?);
        let (grouped, single) = (Inserters::of(&rig.litefs)?, Inserters::of(&without.open()?)?);
        Ok(Self { grouped, single, echo: rig.tarpc()?, rig, without })
    }

    /// Sets the commit delay on both primaries.
    fn slow(&self, by: Duration) -> Result<(), Problem> {
        let mut primaries = self.rig.primary().into_iter().chain([&self.without]);
        Ok(primaries.try_for_each(|pair| pair.control().set_commit_delay(by))?)
    }

    fn measure(&self, effort: Effort, callers: usize) -> Result<Outcome, Problem> {
        let time = effort.time(TIME);
        let mut turns: [Turn<'_, Sample>; 3] = [
            Box::new(|| self.grouped.storm(callers, time)),
            Box::new(|| self.single.storm(callers, time)),
            Box::new(|| echoes(&self.echo, callers, time)),
        ];
        let results = alternate(effort.rounds(WARM_UP), effort.rounds(ROUNDS), &mut turns)?;
        let [grouped, single, echo] = results.try_into().map_err(|_| "three kinds")?;
        Ok(Outcome { callers, grouped, single, echo })
    }
}

impl Inserters {
    fn of(litefs: &LiteFs) -> Result<Self, Problem> {
        let most = CURVE.iter().max().copied().unwrap_or(CALLERS);
        let pool = r2d2::Pool::builder().max_size(u32::try_from(most)?).min_idle(Some(0));
        Ok(Self(pool.build(litefs.connection_manager())?))
    }

    fn storm(&self, callers: usize, time: Duration) -> Result<Sample, Problem> {
        let caller = |number: usize| {
            let (mut conn, name) = (self.0.get()?, format!("item {number}"));
            Ok::<_, Problem>(move || Ok(items::insert(&mut *conn, &name, items::PAYLOAD)? as u64))
        };
        storm((0..callers).map(caller).collect::<Result<_, _>>()?, time)
    }
}

/// The same messages over bare tarpc, without any work.
fn echoes(caller: &bare::Caller, callers: usize, time: Duration) -> Result<Sample, Problem> {
    bare_calls(caller, callers, time, bare::Caller::echo)
}

/// Rows inserted over bare tarpc, one by one.
fn bare_inserts(caller: &bare::Caller, callers: usize, time: Duration) -> Result<Sample, Problem> {
    bare_calls(caller, callers, time, bare::Caller::insert)
}

fn bare_calls(
    caller: &bare::Caller,
    callers: usize,
    time: Duration,
    call: fn(&bare::Caller, &str, &str) -> Result<u64, Problem>,
) -> Result<Sample, Problem> {
    let one = |number: usize| {
        let (caller, name) = (caller.clone(), format!("item {number}"));
        move || call(&caller, &name, items::PAYLOAD)
    };
    storm((0..callers).map(one).collect(), time)
}

impl Outcome {
    /// The ratio of the throughput with group commit to the one without.
    fn gain(&self) -> f64 {
        ratio(&throughputs(&self.grouped), &throughputs(&self.single))
    }
}

fn add_figures(report: &mut Report, outcome: &Outcome) -> std::io::Result<()> {
    report.add(
        "group_normal_ratio",
        outcome.gain(),
        "ratio",
        "writes/s of 64 callers, group commit / one commit per write; at least 2",
    )?;
    add_grouped(report, &outcome.grouped, &outcome.echo)?;
    let single = Summary::of(&outcome.single);
    report.add(
        "single_throughput",
        single.throughput,
        "1/s",
        "writes of 64 callers, one commit per write",
    )
}

/// The figures that need no comparison without group commit.
fn add_grouped(report: &mut Report, grouped: &[Sample], echo: &[Sample]) -> std::io::Result<()> {
    let summary = Summary::of(grouped);
    report.add(
        "group_p99_over_p50_ratio",
        summary.p99 / summary.p50,
        "ratio",
        "latency of 64 callers, at most 3",
    )?;
    report.add(
        "group_vs_echo_ratio",
        ratio(&throughputs(grouped), &throughputs(echo)),
        "ratio",
        "writes/s / bare tarpc calls/s without work, 64 callers; at least 0.59",
    )?;
    report.add(
        "group_throughput",
        summary.throughput,
        "1/s",
        "writes of 64 callers on a replica",
    )?;
    report.add("group_p50", summary.p50, "us", "their latency")?;
    report.add("group_p99", summary.p99, "us", "their latency")?;
    report.add(
        "echo_throughput",
        Summary::of(echo).throughput,
        "1/s",
        "bare tarpc calls of 64 callers",
    )
}

fn on_mount(report: &mut Report, effort: Effort, mount: &Mount) -> Result<(), Problem> {
    let rig = Rig::start(Some(mount), &Setup::embedded(Synchronous::Normal))?;
    let (inserters, echo, time) = (Inserters::of(&rig.litefs)?, rig.tarpc()?, effort.time(TIME));
    let mut turns: [Turn<'_, Sample>; 3] = [
        Box::new(|| inserters.storm(CALLERS, time)),
        Box::new(|| echoes(&echo, CALLERS, time)),
        Box::new(|| bare_inserts(&echo, CALLERS, time)),
    ];
    let results = alternate(effort.rounds(WARM_UP), effort.rounds(ROUNDS), &mut turns)?;
    let [grouped, echo, single] = results.try_into().map_err(|_| "three kinds")?;
    let gain = ratio(&throughputs(&grouped), &throughputs(&single));
    report.add(
        "group_vs_tarpc_ratio",
        gain,
        "ratio",
        "writes/s of 64 callers / bare tarpc calls with one commit each",
    )?;
    add_grouped(report, &grouped, &echo)?;
    let single = Summary::of(&single);
    Ok(report.add(
        "tarpc_throughput",
        single.throughput,
        "1/s",
        "bare tarpc calls with one commit each",
    )?)
}

fn draw(file: &Path, curve: &[Outcome]) -> Result<(), Problem> {
    let points = |of: fn(&Outcome) -> &[Sample]| {
        let point = |outcome: &Outcome| Point {
            callers: outcome.callers,
            summary: Summary::of(of(outcome)),
        };
        curve.iter().map(point).collect()
    };
    plot::draw(
        file,
        &[
            Curve { name: "group commit", points: points(|outcome| &outcome.grouped) },
            Curve { name: "one commit per write", points: points(|outcome| &outcome.single) },
            Curve { name: "bare tarpc, no work", points: points(|outcome| &outcome.echo) },
        ],
    )
}
