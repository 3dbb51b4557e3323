//! Single-row inserts on a replica.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use litefs_diesel::core::RoleKind;
use litefs_diesel::{Delivery, LiteFs, LiteFsConnection};
use litefs_testkit::{Cluster, Node};
use rand::Rng;
use tempfile::TempDir;

use super::bare::Caller;
use super::report::Report;
use super::server::{Mounted, Ready};
use super::{DATABASE, items};
use crate::Problem;
use crate::process::Child;
use crate::stats::median;

const ROUNDS: usize = 100;
/// Of each kind, per round.
const INSERTS: usize = 50;
/// Rounds before it counts: connections are made, caches fill, the first pages are split.
const WARM_UP: usize = 10;
/// How long a replica may take to have the table.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// A primary in another process and its replica in this one.
struct Pair {
    replica: Node,
    bare: Option<SocketAddr>,
    // Ends before the directory goes.
    _primary: Child,
    _root: TempDir,
}

impl Pair {
    fn start(server: &str, secret: &str) -> Result<Self, Problem> {
        let mut primary = Child::start(server, &[server], &[("LITEFS_RPC_SECRET", secret)])?;
        let root = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let replica = Node::builder("replica").dir(root.path().join("replica")).start()?;
        let cluster = Cluster::attach([primary.hear::<Mounted>()?.litefs, replica.http_url()])?;
        cluster.promote("primary")?;
        let bare = primary.hear::<Ready>()?.bare;
        cluster.wait_for_sync(SYNC_LIMIT)?;
        // Replication is LiteFS's work and goes on behind a write, not in it. With both nodes on two processors it would
        // be measured as well, in the one pair or the other, as chance has it.
        replica.stall_replication()?;
        Ok(Self { replica, bare, _primary: primary, _root: root })
    }
}

pub(super) fn run(report: &mut Report) -> Result<(), Problem> {
    let secret = format!("{:032x}", rand::rng().random::<u128>());
    let with = Pair::start("litefs-server", &secret)?;
    let without = Pair::start("bare-server", &secret)?;
    let litefs = start(&with.replica, secret)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let server = without.bare.ok_or("the bare server did not say where it listens")?;
    let caller = Caller::connect(runtime.handle().clone(), server)?;
    let mut rounds = measure(&mut litefs.establish()?, &caller)?;
    check(&litefs, 2 * rounds.len() * INSERTS)?;
    // Round by round: what disturbs the machine for a while then disturbs both sides of a ratio.
    let mut ratio = |of: usize| {
        let mut ratios: Vec<_> =
            rounds.iter_mut().map(|round| median(&mut round[of]) / median(&mut round[BARE])).collect();
        median(&mut ratios)
    };
    let (same_work, with_outcome) = (ratio(AT_MOST_ONCE), ratio(EXACTLY_ONCE));
    let p50 = |of: usize| {
        median(&mut rounds.iter().flat_map(|round| round[of].iter().copied()).collect::<Vec<_>>())
    };
    report.add(
        "forward_vs_tarpc_ratio",
        same_work,
        "ratio",
        "forwarded INSERT, at most once, / bare tarpc call that does the same, median of rounds, at most 1.2",
    )?;
    report.add(
        "forward_exactly_once_ratio",
        with_outcome,
        "ratio",
        "the same, exactly once: the outcome is kept beside the row",
    )?;
    report.add("forward_p50", p50(EXACTLY_ONCE), "us", "INSERT through LiteFsConnection on a replica")?;
    Ok(report.add("tarpc_p50", p50(BARE), "us", "bare tarpc call that does the same INSERT")?)
}

fn start(replica: &Node, secret: String) -> Result<LiteFs, Problem> {
    let litefs = LiteFs::builder(&replica.database_url(DATABASE))
        .from_env()
        .secret(secret)
        .tracker(|tracker| {
            tracker.http_url(&replica.http_url()).require_litefs(true).detectors(super::AS_ON_FUSE)
        })
        .serve(false)
        .start()?;
    match litefs.role().kind() {
        RoleKind::Replica => Ok(litefs),
        other => Err(format!("not a replica but {other}").into()),
    }
}

/// Microseconds of each insert of one round: forwarded at most once, forwarded exactly once, bare.
type Round = [Vec<f64>; 3];
const AT_MOST_ONCE: usize = 0;
const EXACTLY_ONCE: usize = 1;
const BARE: usize = 2;

fn measure(conn: &mut LiteFsConnection, caller: &Caller) -> Result<Vec<Round>, Problem> {
    let mut rounds = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let mut times = Round::default();
        // Each comes first, in the middle and last equally often.
        for turn in 0..times.len() {
            let kind = (round + turn) % times.len();
            times[kind] = match kind {
                BARE => timed(|name| caller.insert(name, items::PAYLOAD))?,
                kind => {
                    let delivery =
                        if kind == AT_MOST_ONCE { Delivery::AtMostOnce } else { Delivery::ExactlyOnce };
                    let mut insert = |name: &str| {
                        conn.with_delivery(delivery, |conn| {
                            Ok(items::insert(conn, name, items::PAYLOAD)? as u64)
                        })
                    };
                    timed(&mut insert)?
                }
            };
        }
        if round >= WARM_UP {
            rounds.push(times);
        }
    }
    Ok(rounds)
}

fn timed(mut insert: impl FnMut(&str) -> Result<u64, Problem>) -> Result<Vec<f64>, Problem> {
    (0..INSERTS)
        .map(|number| {
            let name = format!("item {number}");
            let started = Instant::now();
            let inserted = insert(&name)?;
            let took = started.elapsed().as_nanos() as f64 / 1_000.0;
            if inserted == 1 { Ok(took) } else { Err(format!("inserted {inserted} rows, not one").into()) }
        })
        .collect()
}

/// One round trip each: nothing was answered from elsewhere, nothing was sent twice.
fn check(litefs: &LiteFs, measured: usize) -> Result<(), Problem> {
    let expected = (measured + 2 * WARM_UP * INSERTS) as u64;
    match litefs.round_trips() {
        trips if trips == expected => Ok(()),
        trips => Err(format!("{expected} inserts made {trips} round trips").into()),
    }
}
