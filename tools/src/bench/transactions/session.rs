//! The round trips of a transaction that runs in a session on the primary.

use std::time::{Duration, Instant};

use litefs_diesel::{LiteFs, LiteFsConnection};
use litefs_examples::Problem;
use litefs_examples::stats::median;
use litefs_testkit::{Flow, Relay};

use crate::bench::items;
use crate::bench::pair::Pair;
use crate::bench::report::Report;
use crate::bench::rounds::Effort;
use crate::bench::server::{Setup, Synchronous};

/// The delay that the link adds to a round trip.
const DELAY: Duration = Duration::from_millis(20);
const TRANSACTIONS: usize = 30;
/// Statements of one transaction.
const STATEMENTS: usize = 5;

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    let link = Relay::start()?;
    let pair = Pair::litefs_behind(link.address(), &Setup::embedded(Synchronous::Normal))?;
    link.set_target(pair.rpc()?);
    let litefs = pair.open()?;
    let mut conn = litefs.establish()?;
    // Connects, and prepares the statements on the primary.
    transaction(&mut conn)?;
    link.set_requests(Flow { delay: DELAY, ..Flow::default() });
    let (mut ratios, mut in_inserts, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.count(TRANSACTIONS) {
        let (took, made) = measured(&litefs, || transaction(&mut conn))?;
        let (one, _) =
            measured(&litefs, || Ok(items::insert(&mut conn, "item", items::PAYLOAD).map(drop)?))?;
        ratios.push(took.as_secs_f64() / (made * DELAY.as_secs_f64()));
        in_inserts.push(took.as_secs_f64() / (made * one.as_secs_f64()));
        trips.push(made);
    }
    let (_, batched) = measured(&litefs, || batch(&mut conn))?;
    report.add(
        "transaction_round_trip_ratio",
        median(&mut ratios),
        "ratio",
        "time of a transaction / its round trips times 20 ms, about 1",
    )?;
    report.add(
        "transaction_over_inserts_ratio",
        median(&mut in_inserts),
        "ratio",
        "time of a transaction / its round trips times one INSERT over the same link, about 1",
    )?;
    report.add(
        "transaction_round_trips",
        median(&mut trips),
        "trips",
        "of BEGIN, 5 INSERTs, COMMIT: 6",
    )?;
    Ok(report.add("batch_round_trips", batched, "trips", "of the same as execute_batch: 1")?)
}

/// The duration and the number of round trips.
fn measured(
    litefs: &LiteFs,
    work: impl FnOnce() -> Result<(), Problem>,
) -> Result<(Duration, f64), Problem> {
    let (started, before) = (Instant::now(), litefs.round_trips());
    work()?;
    Ok((started.elapsed(), (litefs.round_trips() - before) as f64))
}

fn transaction(conn: &mut LiteFsConnection) -> Result<(), Problem> {
    conn.immediate_transaction(|conn| {
        (0..STATEMENTS).try_for_each(|number| {
            items::insert(conn, &format!("item {number}"), items::PAYLOAD).map(drop)
        })
    })
    .map_err(|error: diesel::result::Error| error.into())
}

fn batch(conn: &mut LiteFsConnection) -> Result<(), Problem> {
    use diesel::ExpressionMethods;
    use diesel::query_builder::QueryFragment;
    let insert = |number| {
        let values = (
            items::items::name.eq(format!("item {number}")),
            items::items::payload.eq(items::PAYLOAD),
        );
        diesel::insert_into(items::items::table).values(values)
    };
    let inserts: Vec<_> = (0..STATEMENTS).map(insert).collect();
    let queries: Vec<_> =
        inserts.iter().map(|insert| insert as &dyn QueryFragment<diesel::sqlite::Sqlite>).collect();
    match conn.execute_batch(&queries)?.len() {
        STATEMENTS => Ok(()),
        ran => Err(format!("{ran} statements ran, not {STATEMENTS}").into()),
    }
}
