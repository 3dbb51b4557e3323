//! The run from the start of the processes to the verdict.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use litefs_examples::Problem;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::attack::Attack;
use super::check::{Verdict, Violation, check};
use super::client::{Client, ClientContext};
use super::embedded::Embedded;
use super::history::{History, Record};
use super::losses::REPORT_LIMIT;
use super::mounts::Mounts;
use super::options::Options;
use super::schedule::{FaultSet, Step, schedule};
use super::summary::Summary;
use super::weakness::Weakness;

/// The number of clients of each node.
const CLIENTS: usize = 4;
/// The interval at which reports of losses are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Starts the cluster, injects faults, heals the cluster, and checks the history.
pub(super) fn run(options: &Options) -> Result<ExitCode, Problem> {
    let length = Duration::from_secs(options.seconds);
    let steps = schedule(options.seed, length, fault_set(options));
    if options.verbose {
        steps.iter().for_each(|step| println!("{step}"));
    }
    let progress = progress_bar(options.seconds);
    progress.set_message("starting the nodes");
    let runtime = Runtime::new()?;
    let shared =
        ClientContext::new(options.nodes(), options.weaken == Some(Weakness::RetryUnknown))?;
    let mut cluster = start(options, &shared, &runtime)?;
    let clients = start_clients(&runtime, options, &shared);
    let began = shared.began.elapsed();
    let attacked = attack(&mut *cluster, &steps, &shared, length, &progress, options.verbose);
    shared.over.cancel();
    progress.set_message("healing");
    let healed = attacked.and_then(|()| cluster.heal());
    let records = runtime.block_on(clients.join_all()).into_iter().flatten().collect();
    let took = shared.began.elapsed() - began;
    let history = healed.and_then(|()| remember(&*cluster, records))?;
    progress.finish_and_clear();
    let verdict = judge(&history, &*cluster);
    print!("{}", Summary { history: &history, verdict: &verdict, took, faults: steps.len() });
    if options.verbose || !verdict.is_good() {
        println!("history {}", write_down(&history, options.seed)?.display());
    }
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress_bar(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds * 1_000);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn fault_set(options: &Options) -> FaultSet {
    match options.weaken {
        _ if !options.mounts.is_empty() => FaultSet::Processes,
        Some(Weakness::Proof) => FaultSet::DroppedCommits,
        _ => FaultSet::Everything,
    }
}

fn start(
    options: &Options,
    shared: &Arc<ClientContext>,
    runtime: &Runtime,
) -> Result<Box<dyn Attack>, Problem> {
    let (shared, runtime, weaken) = (Arc::clone(shared), runtime.handle().clone(), options.weaken);
    Ok(match options.mounts.as_slice() {
        [] => Box::new(Embedded::start(shared, runtime, weaken)?),
        [_] => return Err("one mount is not a cluster: give at least two".into()),
        mounts => Box::new(Mounts::start(mounts, shared, runtime, weaken)?),
    })
}

fn start_clients(
    runtime: &Runtime,
    options: &Options,
    shared: &Arc<ClientContext>,
) -> JoinSet<Vec<Record>> {
    let mut clients = JoinSet::new();
    let nodes = options.nodes();
    for number in 0..nodes * CLIENTS {
        let client = Client::new(number, number % nodes, options.seed, Arc::clone(shared));
        clients.spawn_on(client.run(), runtime.handle());
    }
    clients
}

/// Executes the schedule. A fault that takes longer than planned delays later faults and has no
/// other effect.
fn attack(
    cluster: &mut dyn Attack,
    steps: &[Step],
    shared: &ClientContext,
    length: Duration,
    progress: &ProgressBar,
    verbose: bool,
) -> Result<(), Problem> {
    let start = shared.began.elapsed();
    let now = || shared.began.elapsed() - start;
    for (at, id, begins) in timeline(steps, length) {
        // The times of the schedule determine the pace.
        thread::sleep(at.saturating_sub(now()));
        progress.set_position(u64::try_from(now().as_millis()).unwrap_or(u64::MAX));
        let fault = steps[id].fault;
        let told = if begins { cluster.begin(id, fault)? } else { cluster.end(id, fault)? };
        if verbose && !told.is_empty() {
            progress.suspend(|| println!("{:8.3} s {told}", now().as_secs_f64()));
        }
        progress.set_message(if begins { format!("{fault:?}") } else { String::new() });
    }
    thread::sleep(length.saturating_sub(now()));
    Ok(())
}

/// When each step begins or ends.
fn timeline(steps: &[Step], length: Duration) -> Vec<(Duration, usize, bool)> {
    let mut moments: Vec<_> = steps
        .iter()
        .enumerate()
        .flat_map(|(id, step)| [(step.at, id, true), (step.at + step.lasts, id, false)])
        .filter(|(at, ..)| *at < length)
        .collect();
    moments.sort_by_key(|(at, id, _)| (*at, *id));
    moments
}

fn remember(cluster: &dyn Attack, records: Vec<Record>) -> Result<History, Problem> {
    Ok(History { records, takeovers: cluster.takeovers(), finals: cluster.finals()? })
}

/// A report of a loss may arrive after all nodes have the same data, so this waits for losses that
/// have not been reported.
fn judge(history: &History, cluster: &dyn Attack) -> Verdict {
    let deadline = Instant::now() + REPORT_LIMIT;
    loop {
        let verdict = check(history, &cluster.losses());
        if verdict.count(Violation::LostUnreported) == 0 || Instant::now() >= deadline {
            return verdict;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Writes the history as lines of JSON: the operations of clients, failovers, the content of nodes.
fn write_down(history: &History, seed: u64) -> Result<PathBuf, Problem> {
    let name = format!("nemesis-{seed}-{}.jsonl", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = BufWriter::new(File::create(&path)?);
    let mut records: Vec<_> = history.records.iter().collect();
    records.sort_by_key(|record| record.invoked);
    for record in records {
        writeln!(file, "{}", serde_json::to_string(record)?)?;
    }
    for takeover in &history.takeovers {
        writeln!(file, "{}", serde_json::to_string(takeover)?)?;
    }
    for held in &history.finals {
        writeln!(file, "{}", serde_json::to_string(held)?)?;
    }
    file.flush()?;
    Ok(path)
}
