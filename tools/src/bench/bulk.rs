//! Ten thousand rows in one call.

use std::time::Instant;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use litefs_examples::Problem;
use litefs_examples::stats::median;
use litefs_testkit::Cluster;

use super::items as table;
use super::items::items;
use super::node::DATABASE;
use super::options::Mount;
use super::pair::Pair;
use super::report::Report;
use super::rig::Rig;
use super::rounds::{Effort, Turn, alternate, ratio};
use super::rows::{at_once, row_by_row};
use super::server::{Setup, Synchronous};

const ROUNDS: usize = 20;
const WARM_UP: usize = 2;
const ROWS: usize = 10_000;

/// The same rows without the optional column, for which Diesel makes one statement.
fn tuples(count: usize) -> Vec<Tuple> {
    let row =
        |number| (items::name.eq(format!("item {number}")), items::payload.eq(table::PAYLOAD));
    (0..count).map(row).collect()
}

type Tuple = (diesel::dsl::Eq<items::name, String>, diesel::dsl::Eq<items::payload, &'static str>);

pub(super) fn run(
    report: &mut Report,
    effort: Effort,
    mount: Option<&Mount>,
) -> Result<(), Problem> {
    let count = effort.count(ROWS);
    if let Some(mount) = mount {
        return on_mount(report, effort, mount, count);
    }
    // Each contender has its own files: SQLite's checkpoints, one after some commits, would
    // otherwise always fall on the same contender.
    let setup = Setup::embedded(Synchronous::Normal);
    let pairs = [Pair::litefs(&setup)?, Pair::litefs(&setup)?];
    let litefs = [pairs[0].open()?, pairs[1].open()?];
    let [mut ours, mut one] = [litefs[0].establish()?, litefs[1].establish()?];
    let [(_rows, mut plain), (_statement, mut plain_one)] = [local()?, local()?];
    let mut turns: [Turn<'_, f64>; 4] = [
        Box::new(move || timed(count, || at_once(&mut ours, count))),
        Box::new(move || timed(count, || row_by_row(&mut plain, count))),
        Box::new(move || timed(count, || one_statement(&mut one, count))),
        Box::new(move || timed(count, || one_statement(&mut plain_one, count))),
    ];
    let mut times = alternate(effort.rounds(WARM_UP), effort.rounds(ROUNDS), &mut turns)?;
    report.add(
        "bulk_speed_ratio",
        ratio(&times[1], &times[0]),
        "ratio",
        "rows/s of execute_at_once on a replica / Diesel on a local file; at least 0.8",
    )?;
    report.add(
        "bulk_one_statement_ratio",
        ratio(&times[3], &times[2]),
        "ratio",
        "the same for one statement of all rows, which needs no optional columns",
    )?;
    report.add(
        "bulk_forwarded",
        median(&mut times[0]),
        "ms",
        "10,000 rows, execute_at_once on a replica",
    )?;
    report.add("bulk_local", median(&mut times[1]), "ms", "10,000 rows, Diesel on a local file")?;
    report.add(
        "bulk_forwarded_one_statement",
        median(&mut times[2]),
        "ms",
        "in one statement, on a replica",
    )?;
    Ok(report.add(
        "bulk_local_one_statement",
        median(&mut times[3]),
        "ms",
        "in one statement, local",
    )?)
}

/// On real LiteFS the local insert is one on the primary's mount, made by the bare server there.
fn on_mount(
    report: &mut Report,
    effort: Effort,
    mount: &Mount,
    count: usize,
) -> Result<(), Problem> {
    let rig = Rig::start(Some(mount), &Setup::embedded(Synchronous::Normal))?;
    let (mut ours, there) = (rig.litefs.establish()?, rig.tarpc()?);
    let mut turns: [Turn<'_, f64>; 2] = [
        Box::new(move || timed(count, || at_once(&mut ours, count))),
        Box::new(move || Ok(there.bulk(count)? as f64 / 1e6)),
    ];
    let mut times = alternate(effort.rounds(WARM_UP), effort.rounds(ROUNDS), &mut turns)?;
    report.add(
        "bulk_speed_ratio",
        ratio(&times[1], &times[0]),
        "ratio",
        "rows/s of execute_at_once on a replica / Diesel on the primary's own mount; at least 0.8",
    )?;
    report.add(
        "bulk_forwarded",
        median(&mut times[0]),
        "ms",
        "10,000 rows, execute_at_once on a replica",
    )?;
    Ok(report.add(
        "bulk_local",
        median(&mut times[1]),
        "ms",
        "10,000 rows, Diesel on the primary's mount",
    )?)
}

fn local() -> Result<(Cluster, SqliteConnection), Problem> {
    let cluster = Cluster::builder().nodes(["local"]).database(DATABASE).start()?;
    cluster.node("local").set_sync(true)?;
    let mut connection =
        SqliteConnection::establish(&cluster.node("local").database_url(DATABASE))?;
    connection.batch_execute("PRAGMA busy_timeout = 5000")?;
    Synchronous::Normal.set(&mut connection)?;
    connection.batch_execute(table::DDL)?;
    Ok((cluster, connection))
}

fn one_statement<C>(conn: &mut C, count: usize) -> QueryResult<usize>
where
    C: Connection<Backend = diesel::sqlite::Sqlite>,
{
    diesel::insert_into(items::table).values(tuples(count)).execute(conn)
}

/// Milliseconds.
fn timed(count: usize, insert: impl FnOnce() -> QueryResult<usize>) -> Result<f64, Problem> {
    let started = Instant::now();
    match insert()? {
        rows if rows == count => Ok(started.elapsed().as_nanos() as f64 / 1e6),
        rows => Err(format!("{rows} rows were inserted, not {count}").into()),
    }
}
