//! Single-row inserts on a replica, one at a time.

use std::time::Instant;

use litefs_diesel::{Delivery, LiteFs, LiteFsConnection};
use litefs_examples::Problem;
use litefs_examples::stats::median;

use super::items;
use super::options::Mount;
use super::report::Report;
use super::rig::Rig;
use super::rounds::{Effort, Turn, alternate, ratio};
use super::server::{Setup, Synchronous};

const ROUNDS: usize = 100;
/// Inserts of each kind per round.
const INSERTS: usize = 50;
/// Warm-up rounds: connections are made, caches fill, the first pages are split.
const WARM_UP: usize = 10;

/// Microseconds of an insert, the median of each round.
struct Times {
    at_most_once: Vec<f64>,
    exactly_once: Vec<f64>,
    tarpc: Vec<f64>,
    raw: Vec<f64>,
}

pub(super) fn run(
    report: &mut Report,
    effort: Effort,
    mount: Option<&Mount>,
) -> Result<(), Problem> {
    let mut normal = measure(effort, mount, Synchronous::Normal)?;
    add_figures(report, &mut normal)?;
    // The commits of a mount's primary are not configured here.
    if mount.is_none() {
        add_full(report, &mut measure(effort, None, Synchronous::Full)?)?;
    }
    Ok(())
}

fn add_figures(report: &mut Report, times: &mut Times) -> std::io::Result<()> {
    report.add(
        "forward_vs_tarpc_ratio",
        ratio(&times.at_most_once, &times.tarpc),
        "ratio",
        "forwarded INSERT, at most once, / bare tarpc call with the same INSERT; at most 1.2",
    )?;
    report.add(
        "forward_exactly_once_vs_tarpc_ratio",
        ratio(&times.exactly_once, &times.tarpc),
        "ratio",
        "the same exactly once (default), which stores the outcome; at most 0.85",
    )?;
    report.add(
        "forward_vs_raw_ratio",
        ratio(&times.exactly_once, &times.raw),
        "ratio",
        "exactly once / blocking sockets only; at most 1.65",
    )?;
    report.add(
        "forward_at_most_once_vs_raw_ratio",
        ratio(&times.at_most_once, &times.raw),
        "ratio",
        "at most once / blocking sockets only",
    )?;
    report.add(
        "tarpc_vs_raw_ratio",
        ratio(&times.tarpc, &times.raw),
        "ratio",
        "tarpc / blocking sockets",
    )?;
    report.add(
        "forward_p50",
        median(&mut times.exactly_once),
        "us",
        "INSERT on a replica, exactly once",
    )?;
    report.add(
        "forward_at_most_once_p50",
        median(&mut times.at_most_once),
        "us",
        "at most once",
    )?;
    report.add(
        "tarpc_p50",
        median(&mut times.tarpc),
        "us",
        "bare tarpc call with the same INSERT",
    )?;
    report.add("raw_p50", median(&mut times.raw), "us", "blocking sockets, the same INSERT")
}

fn add_full(report: &mut Report, times: &mut Times) -> std::io::Result<()> {
    report.add(
        "forward_vs_raw_full_ratio",
        ratio(&times.exactly_once, &times.raw),
        "ratio",
        "the same with synchronous = FULL on both primaries; at most 1.5",
    )?;
    report.add(
        "forward_full_p50",
        median(&mut times.exactly_once),
        "us",
        "INSERT on a replica, FULL",
    )?;
    report.add("raw_full_p50", median(&mut times.raw), "us", "blocking sockets, FULL")
}

fn measure(
    effort: Effort,
    mount: Option<&Mount>,
    synchronous: Synchronous,
) -> Result<Times, Problem> {
    let rig = Rig::start(mount, &Setup::embedded(synchronous))?;
    let (rounds, warm_up) = (effort.rounds(ROUNDS), effort.rounds(WARM_UP));
    let (tarpc, mut raw) = (rig.tarpc()?, rig.raw()?);
    let before = rig.litefs.round_trips();
    let mut turns: [Turn<'_, f64>; 4] = [
        forwarded(&rig.litefs, Delivery::AtMostOnce)?,
        forwarded(&rig.litefs, Delivery::ExactlyOnce)?,
        Box::new(move || timed(|name| tarpc.insert(name, items::PAYLOAD))),
        Box::new(move || timed(|name| raw.insert(name, items::PAYLOAD))),
    ];
    let results = alternate(warm_up, rounds, &mut turns)?;
    // One round trip each: no insert was answered locally or sent twice.
    let (sent, expected) =
        (rig.litefs.round_trips() - before, (2 * (warm_up + rounds) * INSERTS) as u64);
    if sent != expected {
        return Err(format!("{expected} inserts made {sent} round trips").into());
    }
    let [at_most_once, exactly_once, tarpc, raw] = results.try_into().map_err(|_| "four kinds")?;
    Ok(Times { at_most_once, exactly_once, tarpc, raw })
}

fn forwarded(litefs: &LiteFs, delivery: Delivery) -> Result<Turn<'static, f64>, Problem> {
    let mut conn: LiteFsConnection = litefs.establish()?;
    Ok(Box::new(move || {
        timed(|name| {
            conn.with_delivery(delivery, |conn| {
                Ok(items::insert(conn, name, items::PAYLOAD)? as u64)
            })
        })
    }))
}

fn timed(mut insert: impl FnMut(&str) -> Result<u64, Problem>) -> Result<f64, Problem> {
    let mut times = Vec::with_capacity(INSERTS);
    for number in 0..INSERTS {
        let name = format!("item {number}");
        let started = Instant::now();
        let inserted = insert(&name)?;
        times.push(started.elapsed().as_nanos() as f64 / 1_000.0);
        if inserted != 1 {
            return Err(format!("inserted {inserted} rows, not one").into());
        }
    }
    Ok(median(&mut times))
}
