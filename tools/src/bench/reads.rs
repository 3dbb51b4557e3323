//! Reads on a replica.

use std::time::{Duration, Instant};

use diesel::connection::Connection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_core::RoleKind;
use litefs_diesel::{LiteFs, LiteFsConnection};
use litefs_examples::Problem;
use litefs_examples::stats::median;
use litefs_testkit::{Cluster, Node};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::DATABASE;
use super::options::Mount;
use super::pair::start_on_replica;
use super::report::Report;
use super::rounds::{Effort, Turn, alternate, ratio};
use super::{items, rows};

const ROWS: i32 = 10_000;
const ROUNDS: usize = 300;
/// Reads on each connection per round. Rounds are short, so that a disturbance spoils few of them.
const READS: usize = 500;
/// The same through FUSE, where a read takes a hundred times as long.
const ON_MOUNT: (usize, usize) = (100, 50);
/// The rows of one load.
const LOADED: i32 = 1_000;
/// Loads per round.
const LOADS: usize = 5;

/// A replica, with a handle.
struct Nodes {
    litefs: LiteFs,
    url: String,
    rounds: usize,
    /// Reads on each connection per round.
    reads: usize,
    /// Its primary, also in this process, unless the replica is on a real mount. Declared after the
    /// handle, so that it is dropped after it.
    _embedded: Option<(LiteFs, Cluster)>,
}

impl Nodes {
    fn on_mount(mount: &Mount) -> Result<Self, Problem> {
        let url = mount.replica.clone();
        let litefs = start_on_replica(LiteFs::builder(&url).from_env())?;
        rows::fill(&mut litefs.establish()?, ROWS)?;
        let (rounds, reads) = ON_MOUNT;
        Ok(Self { litefs, url, rounds, reads, _embedded: None })
    }

    fn start() -> Result<Self, Problem> {
        let cluster =
            Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
        let (primary, replica) = (cluster.node("primary"), cluster.node("replica"));
        items::fill(&mut SqliteConnection::establish(&primary.database_url(DATABASE))?, ROWS)?;
        cluster.wait_for_sync(Duration::from_secs(30))?;
        let (on_primary, litefs) = (start(primary)?, start(replica)?);
        if litefs.role().kind() != RoleKind::Replica {
            return Err(format!("not a replica but {}", litefs.role()).into());
        }
        let url = replica.database_url(DATABASE);
        Ok(Self {
            litefs,
            url,
            rounds: ROUNDS,
            reads: READS,
            _embedded: Some((on_primary, cluster)),
        })
    }

    fn through(&self) -> Result<LiteFsConnection, Problem> {
        Ok(self.litefs.establish()?)
    }

    fn plain(&self) -> Result<SqliteConnection, Problem> {
        Ok(SqliteConnection::establish(&self.url)?)
    }
}

fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .listen(([127, 0, 0, 1], 0).into())
        .start()?)
}

pub(super) fn run(
    report: &mut Report,
    effort: Effort,
    mount: Option<&Mount>,
) -> Result<(), Problem> {
    let nodes = mount.map_or_else(Nodes::start, Nodes::on_mount)?;
    // After a write of the process, each read checks the position.
    items::insert(&mut nodes.through()?, "forwarded", items::PAYLOAD)?;
    let before = nodes.litefs.round_trips();
    points(report, effort, &nodes)?;
    loads(report, effort, &nodes)?;
    firsts(report, effort, &nodes)?;
    match nodes.litefs.round_trips() - before {
        0 => Ok(()),
        trips => Err(format!("reads left the node {trips} times").into()),
    }
}

/// Nanoseconds per read. The rows are the same for every contender and differ from round to round.
fn reading<C>(
    mut conn: C,
    reads: usize,
    read: fn(&mut C, &[i32]) -> QueryResult<()>,
) -> Turn<'static, f64>
where
    C: 'static,
{
    let mut rng = StdRng::seed_from_u64(1);
    Box::new(move || {
        let ids: Vec<i32> = (0..reads).map(|_| rng.random_range(1..=ROWS)).collect();
        let started = Instant::now();
        read(&mut conn, &ids)?;
        Ok(started.elapsed().as_nanos() as f64 / reads as f64)
    })
}

/// Microseconds per load.
fn loading<C>(mut conn: C, load: fn(&mut C, i32) -> QueryResult<usize>) -> Turn<'static, f64>
where
    C: 'static,
{
    Box::new(move || {
        let started = Instant::now();
        for _ in 0..LOADS {
            match load(&mut conn, LOADED)? {
                rows if rows == LOADED as usize => {}
                rows => return Err(format!("{rows} rows were loaded, not {LOADED}").into()),
            }
        }
        Ok(started.elapsed().as_nanos() as f64 / 1_000.0 / LOADS as f64)
    })
}

fn points(report: &mut Report, effort: Effort, nodes: &Nodes) -> Result<(), Problem> {
    let mut turns = [
        reading(nodes.through()?, nodes.reads, items::read),
        reading(nodes.plain()?, nodes.reads, items::read),
        reading(nodes.plain()?, nodes.reads, items::read),
    ];
    let mut times = alternate(1, effort.rounds(nodes.rounds), &mut turns)?;
    let (litefs, control) = (ratio(&times[0], &times[1]), ratio(&times[2], &times[1]));
    report.add(
        "read_point_ratio",
        litefs,
        "ratio",
        "LiteFsConnection / SqliteConnection, at most 1.03",
    )?;
    report.add("read_control_ratio", control, "ratio", "SqliteConnection / SqliteConnection")?;
    report.add("read_litefs", median(&mut times[0]), "ns", "one read through LiteFsConnection")?;
    Ok(report.add(
        "read_plain",
        median(&mut times[1]),
        "ns",
        "one read through SqliteConnection",
    )?)
}

fn loads(report: &mut Report, effort: Effort, nodes: &Nodes) -> Result<(), Problem> {
    let mut turns = [
        loading(nodes.through()?, items::load),
        loading(nodes.plain()?, items::load),
        loading(nodes.plain()?, items::load),
    ];
    let mut times = alternate(1, effort.rounds(nodes.rounds), &mut turns)?;
    let (litefs, control) = (ratio(&times[0], &times[1]), ratio(&times[2], &times[1]));
    report.add(
        "load_ratio",
        litefs,
        "ratio",
        "1,000 rows, LiteFsConnection / SqliteConnection, at most 1.01",
    )?;
    report.add("load_control_ratio", control, "ratio", "SqliteConnection / SqliteConnection")?;
    Ok(report.add(
        "load_litefs",
        median(&mut times[0]),
        "us",
        "1,000 rows through LiteFsConnection",
    )?)
}

fn firsts(report: &mut Report, effort: Effort, nodes: &Nodes) -> Result<(), Problem> {
    let mut turns = [
        reading(nodes.through()?, nodes.reads, items::read_first),
        reading(nodes.plain()?, nodes.reads, items::read_first),
        reading(nodes.through()?, nodes.reads, items::read),
        reading(nodes.plain()?, nodes.reads, items::read),
    ];
    let mut times = alternate(1, effort.rounds(nodes.rounds), &mut turns)?;
    report.add(
        "first_ratio",
        ratio(&times[0], &times[1]),
        "ratio",
        ".first(), LiteFsConnection / SqliteConnection",
    )?;
    report.add(
        "first_over_get_result_ratio",
        ratio(&times[0], &times[2]),
        "ratio",
        ".first() / .get_result(), LiteFsConnection",
    )?;
    report.add(
        "first_over_get_result_plain_ratio",
        ratio(&times[1], &times[3]),
        "ratio",
        ".first() / .get_result(), SqliteConnection; 2.7 without SQLITE_ENABLE_QPSG",
    )?;
    Ok(report.add(
        "first_litefs",
        median(&mut times[0]),
        "ns",
        ".first() through LiteFsConnection",
    )?)
}
