//! Many replicas, many connections, a full queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::Connection;
use diesel::sqlite::SqliteConnection;
use futures::future::try_join_all;
use litefs_diesel::Delivery;
use litefs_examples::Problem;
use litefs_rpc::client::{self, CallError, Client};
use litefs_rpc::wire::{Command, Request, RequestId, Settings, Statement, Value};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::items;
use super::pair::Pair;
use super::report::Report;
use super::rounds::Effort;
use super::server::{Setup, Synchronous};

/// Replicas that write, each with its connection to the primary.
const REPLICAS: usize = 100;
/// Idle connections.
const IDLE: usize = 1_000;
/// Waiting writes, slightly fewer than a queue holds.
const QUEUED: usize = 4_000;
/// How long all replicas write.
const TIME: Duration = Duration::from_secs(4);
/// A commit delay after which the server knows the writer to be slow.
const SLOW_COMMIT: Duration = Duration::from_millis(100);
/// Longer than it takes to fill the queue and to measure.
const STUCK_COMMIT: Duration = Duration::from_secs(3);
/// When the queue is full and no write has been taken from it yet.
const MEASURE_AFTER: Duration = Duration::from_millis(1_500);
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let pair = Pair::litefs(&Setup::embedded(Synchronous::Normal))?;
    let runtime = Runtime::new()?;
    let links = runtime.block_on(connect(&pair, effort.count(REPLICAS)))?;
    let counts = runtime.block_on(write_for(&links, effort.time(TIME)))?;
    let (all, least) =
        (counts.iter().sum::<u64>() as f64, counts.iter().min().copied().unwrap_or(0) as f64);
    let mean = all / counts.len() as f64;
    report.add(
        "scale_throughput",
        all / effort.time(TIME).as_secs_f64(),
        "1/s",
        "writes of 100 replicas",
    )?;
    report.add(
        "scale_fairness_ratio",
        least / mean,
        "ratio",
        "the slowest replica's share / the mean share",
    )?;
    let queued = runtime.block_on(queue(&pair, &links, effort.count(QUEUED)))?;
    report.add(
        "scale_queued_write",
        queued,
        "KiB",
        "resident memory of the primary per waiting write",
    )?;
    let before = resident(pair.process())?;
    let more = runtime.block_on(connect(&pair, effort.count(IDLE - REPLICAS)))?;
    let grown = resident(pair.process())?.saturating_sub(before);
    let each = grown as f64 / more.len() as f64;
    report.add(
        "scale_idle_link",
        each,
        "KiB",
        "resident memory of the primary per connected replica",
    )?;
    pooled(report, effort, &pair)
}

/// As many connections as that many replicas would open.
async fn connect(pair: &Pair, count: usize) -> Result<Vec<Arc<client::Connection>>, Problem> {
    let address = pair.rpc()?.to_string();
    let mut links = Vec::with_capacity(count);
    for _ in 0..count {
        links.push(Client::new(pair.client_config()?).connect(&address).await?);
    }
    Ok(links)
}

/// How many writes each replica completed.
async fn write_for(links: &[Arc<client::Connection>], time: Duration) -> Result<Vec<u64>, Problem> {
    let until = Instant::now() + time;
    let mut writers = JoinSet::new();
    for link in links {
        let link = Arc::clone(link);
        writers.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                link.write(insert(), until + DEADLINE).await?;
                count += 1;
            }
            Ok::<u64, CallError>(count)
        });
    }
    let counts: Result<Vec<_>, _> = writers.join_all().await.into_iter().collect();
    Ok(counts?)
}

fn insert() -> Request {
    let text = |text: &str| Value::Text(text.to_owned());
    let statement = Statement {
        sql: "INSERT INTO items (name, payload) VALUES (?, ?)".to_owned(),
        params: vec![text("item"), text(items::PAYLOAD)],
        cacheable: true,
    };
    Request {
        id: RequestId::new(),
        delivery: Delivery::ExactlyOnce,
        again: false,
        settings: Settings { foreign_keys: true, ..Settings::default() },
        work: Command::Execute(statement),
    }
}

/// Delays a commit, queues writes behind it, and returns by how many KiB each has made the primary
/// grow.
async fn queue(
    pair: &Pair,
    links: &[Arc<client::Connection>],
    count: usize,
) -> Result<f64, Problem> {
    let deadline = Instant::now() + DEADLINE;
    // After a slow commit the writer runs on its own thread, and the server keeps accepting
    // requests.
    pair.control().set_commit_delay(SLOW_COMMIT)?;
    links[0].write(insert(), deadline).await?;
    pair.control().set_commit_delay(STUCK_COMMIT)?;
    let stuck = {
        let link = Arc::clone(&links[0]);
        tokio::spawn(async move { link.write(insert(), deadline).await })
    };
    tokio::time::sleep(MEASURE_AFTER / 5).await;
    let before = resident(pair.process())?;
    // The commit under way keeps its delay; the commits behind it have none.
    pair.control().set_commit_delay(Duration::ZERO)?;
    let waiting = links.iter().cycle().take(count).map(|link| link.write(insert(), deadline));
    let look = async {
        tokio::time::sleep(MEASURE_AFTER).await;
        resident(pair.process())
    };
    let (answers, after) = tokio::join!(try_join_all(waiting), look);
    answers?;
    stuck.await??;
    Ok(after?.saturating_sub(before) as f64 / count as f64)
}

/// The memory that connections take in the process that pools them, after one read each.
fn pooled(report: &mut Report, effort: Effort, pair: &Pair) -> Result<(), Problem> {
    let (litefs, url, count) = (pair.open()?, pair.replica_url(), effort.count(IDLE));
    let each = |before: u64| {
        Ok::<_, Problem>(resident_here()?.saturating_sub(before) as f64 / count as f64)
    };
    let before = resident_here()?;
    let plain = (0..count)
        .map(|_| idle(SqliteConnection::establish(&url)?))
        .collect::<Result<Vec<_>, _>>()?;
    let plain_each = each(before)?;
    let before = resident_here()?;
    let ours = (0..count).map(|_| idle(litefs.establish()?)).collect::<Result<Vec<_>, _>>()?;
    let ours_each = each(before)?;
    drop((plain, ours));
    report.add(
        "scale_idle_connection",
        ours_each,
        "KiB",
        "resident memory per idle LiteFsConnection",
    )?;
    Ok(report.add(
        "scale_idle_plain",
        plain_each,
        "KiB",
        "resident memory per idle SqliteConnection",
    )?)
}

fn idle<C>(mut connection: C) -> Result<C, Problem>
where
    C: diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite> + Connection,
{
    items::load(&mut connection, 1)?;
    Ok(connection)
}

fn resident_here() -> Result<u64, Problem> {
    resident(std::process::id())
}

/// Resident memory of a process in KiB, from `/proc/<pid>/status`
/// (<https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>).
fn resident(process: u32) -> Result<u64, Problem> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS in /proc")?;
    Ok(value.parse()?)
}
