//! Concurrent writers on the primary: through a plain pool and through the library.

use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::r2d2::{ConnectionManager, CustomizeConnection};
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{LiteFs, LiteFsBuilder, LocalWrites};
use litefs_examples::Problem;
use litefs_testkit::Cluster;

use super::items;
use super::node::DATABASE;
use super::report::Report;
use super::rounds::{Effort, Turn, alternate, ratio};
use super::server::Synchronous;
use super::storm::{Sample, Summary, p99s, storm, throughputs};

const ROUNDS: usize = 6;
/// The length of a round of one kind.
const TIME: Duration = Duration::from_secs(1);
const WRITERS: u32 = 16;
/// The busy timeout of plain connections. SQLite does not serve waiting writers in order, and a
/// writer that gave up would end the measurement.
const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 60000";

/// The options of the primary's own writes.
fn grouped(builder: LiteFsBuilder) -> LiteFsBuilder {
    builder.local_writes(LocalWrites::Grouped)
}

/// A plain connection as an application would set it up.
#[derive(Debug)]
struct Patient;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Patient {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        connection
            .batch_execute(BUSY_TIMEOUT)
            .and_then(|()| Synchronous::Full.set(connection))
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary"]).database(DATABASE).start()?;
    let node = cluster.node("primary");
    node.set_sync(true)?;
    let url = node.database_url(DATABASE);
    SqliteConnection::establish(&url)?.batch_execute(items::DDL)?;
    let litefs = grouped(LiteFs::builder(&url))
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .listen(([127, 0, 0, 1], 0).into())
        .on_connection(|connection| {
            connection.batch_execute(BUSY_TIMEOUT)?;
            Synchronous::Full.set(connection)
        })
        .start()?;
    let ours = r2d2::Pool::builder().max_size(WRITERS).build(litefs.connection_manager())?;
    let plain = r2d2::Pool::builder()
        .max_size(WRITERS)
        .connection_customizer(Box::new(Patient))
        .build(ConnectionManager::<SqliteConnection>::new(&url))?;
    let time = effort.time(TIME);
    let mut turns: [Turn<'_, Sample>; 2] =
        [Box::new(|| write(&ours, time)), Box::new(|| write(&plain, time))];
    let results = alternate(1, effort.rounds(ROUNDS), &mut turns)?;
    Ok(add_figures(report, &results[0], &results[1])?)
}

fn write<M>(pool: &r2d2::Pool<M>, time: Duration) -> Result<Sample, Problem>
where
    M: r2d2::ManageConnection,
    M::Connection: Connection<Backend = diesel::sqlite::Sqlite>,
{
    let writer = |number: u32| {
        let (mut conn, name) = (pool.get()?, format!("item {number}"));
        Ok::<_, Problem>(move || Ok(items::insert(&mut *conn, &name, items::PAYLOAD)? as u64))
    };
    storm((0..WRITERS).map(writer).collect::<Result<_, _>>()?, time)
}

fn add_figures(report: &mut Report, ours: &[Sample], plain: &[Sample]) -> std::io::Result<()> {
    report.add(
        "local_grouped_ratio",
        ratio(&throughputs(ours), &throughputs(plain)),
        "ratio",
        "writes/s of 16 threads on the primary, FULL, ours / plain pool; at least 5",
    )?;
    report.add(
        "local_p99_ratio",
        ratio(&p99s(plain), &p99s(ours)),
        "ratio",
        "the 99th percentile of the slowest caller, plain pool / ours; at least 10",
    )?;
    let (ours, plain) = (Summary::of(ours), Summary::of(plain));
    report.add("local_throughput", ours.throughput, "1/s", "writes through LiteFsConnection")?;
    report.add("local_p99", ours.p99, "us", "their 99th percentile")?;
    report.add(
        "local_plain_throughput",
        plain.throughput,
        "1/s",
        "writes through SqliteConnection",
    )?;
    report.add("local_plain_p99", plain.p99, "us", "their 99th percentile")
}
