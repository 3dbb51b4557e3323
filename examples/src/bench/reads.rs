//! Point reads on a replica.

use std::time::{Duration, Instant};

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_diesel::LiteFs;
use litefs_diesel::core::RoleKind;
use litefs_testkit::{Cluster, Node};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::report::Report;
use super::{DATABASE, items};
use crate::Problem;
use crate::stats::median;

const ROWS: i32 = 10_000;
const ROUNDS: usize = 300;
/// Of each connection, per round: short enough that a disturbance spoils few rounds.
const READS: usize = 500;

/// Nanoseconds per read, one value per round.
#[derive(Default)]
struct Times {
    litefs: Vec<f64>,
    plain: Vec<f64>,
    control: Vec<f64>,
}

pub(super) fn run(report: &mut Report) -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
    let (primary, replica) = (cluster.node("primary"), cluster.node("replica"));
    fill(&mut SqliteConnection::establish(&primary.database_url(DATABASE))?)?;
    cluster.wait_for_sync(Duration::from_secs(30))?;
    let _primary = start(primary)?;
    let litefs = start(replica)?;
    if litefs.role().kind() != RoleKind::Replica {
        return Err(format!("not a replica but {}", litefs.role()).into());
    }
    let mut times = measure(&litefs, &replica.database_url(DATABASE))?;
    let before = litefs.round_trips();
    if before > 1 {
        return Err(format!("reads left the node {} times", before - 1).into());
    }
    Ok(tell(report, &mut times)?)
}

fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .listen(([127, 0, 0, 1], 0).into())
        .start()?)
}

fn fill(conn: &mut SqliteConnection) -> Result<(), Problem> {
    conn.batch_execute(items::DDL)?;
    conn.transaction(|conn| {
        (0..ROWS).try_for_each(|id| items::insert(conn, &format!("item {id}"), items::PAYLOAD).map(drop))
    })
    .map_err(|error: diesel::result::Error| error.into())
}

fn measure(litefs: &LiteFs, url: &str) -> Result<Times, Problem> {
    let mut through = litefs.establish()?;
    // Reads of a process that has written are the ones with something to check.
    items::insert(&mut through, "forwarded", items::PAYLOAD)?;
    let (mut plain, mut control) = (SqliteConnection::establish(url)?, SqliteConnection::establish(url)?);
    let mut rng = StdRng::seed_from_u64(1);
    let mut times = Times::default();
    // The first round fills the caches.
    for round in 0..=ROUNDS {
        let ids: Vec<i32> = (0..READS).map(|_| rng.random_range(1..=ROWS)).collect();
        let mut one = [0.0; 3];
        for turn in 0..3 {
            // Everybody is first as often as the others.
            let whose = (round + turn) % 3;
            one[whose] = match whose {
                0 => time(&mut through, &ids)?,
                1 => time(&mut plain, &ids)?,
                _ => time(&mut control, &ids)?,
            };
        }
        if round > 0 {
            times.litefs.push(one[0]);
            times.plain.push(one[1]);
            times.control.push(one[2]);
        }
    }
    Ok(times)
}

fn time<C: LoadConnection<Backend = Sqlite>>(conn: &mut C, ids: &[i32]) -> Result<f64, Problem> {
    let started = Instant::now();
    items::read(conn, ids)?;
    Ok(started.elapsed().as_nanos() as f64 / ids.len() as f64)
}

fn tell(report: &mut Report, times: &mut Times) -> std::io::Result<()> {
    let ratio = |a: &[f64], b: &[f64]| median(&mut a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>());
    let litefs = ratio(&times.litefs, &times.plain);
    let control = ratio(&times.control, &times.plain);
    report.add("read_point_ratio", litefs, "ratio", "LiteFsConnection / SqliteConnection, at most 1.05")?;
    report.add("read_control_ratio", control, "ratio", "SqliteConnection / SqliteConnection")?;
    report.add("read_litefs", median(&mut times.litefs), "ns", "one read through LiteFsConnection")?;
    report.add("read_plain", median(&mut times.plain), "ns", "one read through SqliteConnection")
}
