//! The run from the start of the processes to the verdict.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::ack_log::AckLog;
use super::audit::Audit;
use super::client::{Client, Experience};
use super::cluster::{NAMES, Processes};
use super::options::Options;
use super::summary::{Figures, NodeFigures, Summary};
use super::target::Target;
use crate::app::Resource;
use crate::{Problem, airports};

/// The number of concurrent clients.
const CLIENTS: u64 = 16;

/// Starts the cluster, sends the requests, and checks the result.
pub(super) fn run(options: Options) -> Result<ExitCode, Problem> {
    let progress = progress_bar(options.requests);
    progress.set_message("starting upstream and two nodes");
    let processes = Arc::new(Processes::start()?);
    let runtime = tokio::runtime::Runtime::new()?;
    let summary = runtime.block_on(drive(&processes, options, &progress))?;
    progress.finish_and_clear();
    print!("{summary}");
    if options.keep {
        super::summary::print_commands(processes.urls());
        runtime.block_on(tokio::signal::ctrl_c())?;
    }
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress_bar(requests: u64) -> ProgressBar {
    let bar = ProgressBar::new(requests);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

async fn drive(
    processes: &Arc<Processes>,
    options: Options,
    progress: &ProgressBar,
) -> Result<Summary, Problem> {
    let airports: Arc<[Resource]> = airports::all()?.into();
    let target = Target::new(processes.urls().clone(), options.requests, progress.clone())?;
    progress.set_message(format!("{} is the primary", NAMES[0]));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(
            Client::new(number, options.seed, Arc::clone(&target), Arc::clone(&airports)).run(),
        );
    }
    target.half_way().await;
    let promotion = promote(processes, progress).await?;
    let mut seen = Vec::new();
    while let Some(client) = clients.join_next().await {
        seen.push(client?);
    }
    let took = started.elapsed();
    progress.set_message("comparing both nodes");
    judge(processes, &target, &airports, seen, took, promotion).await
}

/// Promotes the replica while the clients are running. Returns how long that took.
async fn promote(processes: &Arc<Processes>, progress: &ProgressBar) -> Result<Duration, Problem> {
    let started = Instant::now();
    let cluster = Arc::clone(processes);
    let primary = tokio::task::spawn_blocking(move || cluster.promote_replica()).await??;
    progress.set_message(format!("{primary} is the primary"));
    Ok(started.elapsed())
}

async fn judge(
    processes: &Arc<Processes>,
    target: &Target,
    airports: &[Resource],
    seen: Vec<Experience>,
    took: Duration,
    promotion: Duration,
) -> Result<Summary, Problem> {
    let cluster = Arc::clone(processes);
    tokio::task::spawn_blocking(move || cluster.wait_for_sync()).await??;
    let airports: HashMap<_, _> =
        airports.iter().map(|airport| (airport.id.clone(), airport.clone())).collect();
    let (mut ack_log, mut audit) = (AckLog::default(), Audit::default());
    let (mut violations, mut unknown) = (Vec::new(), Vec::new());
    for client in seen {
        ack_log.merge(client.ack_log);
        violations.extend(client.violations);
        unknown.extend(client.unknown);
    }
    let mut rows = Vec::new();
    let mut figures = Figures::default();
    for (node, name) in NAMES.into_iter().enumerate() {
        let stored = target.all_rows(node).await?;
        audit.check(name, &ack_log, &airports, &stored);
        rows.push(stored);
        let node: NodeFigures = target.get_json(node, "/status").await?;
        figures.add(node);
    }
    for node in 0..NAMES.len() {
        figures.add_forwards(&target.get_json::<Vec<u32>>(node, "/status/forwards").await?);
    }
    Ok(Summary {
        requests: target.sent(),
        refused: target.refused(),
        took,
        promotion,
        failovers: 1,
        figures,
        acknowledged: ack_log.acknowledged(),
        rows: rows[0].len(),
        same: rows[0] == rows[1],
        violations,
        unknown,
        audit,
    })
}
