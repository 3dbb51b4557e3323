//! A custom router: reads of one table are never stale, everything else is as usual.
//!
//! `cargo run -p litefs-examples --example custom_router`

use diesel::prelude::*;
use libsqlite3_sys as _;
use litefs_diesel::{Consistency, ForwardWrites, LiteFs, LiteFsBuilder, Route, Router, Situation};
use litefs_testkit::{Cluster, Node};

diesel::table! {
    /// Bookings.
    ledger (id) {
        /// Number.
        id -> Integer,
        /// In cents.
        amount -> BigInt,
    }
}
diesel::table! {
    /// Articles.
    articles (id) {
        /// Number.
        id -> Integer,
        /// Title.
        title -> Text,
    }
}

type Problem = Box<dyn std::error::Error>;

const DATABASE: &str = "app.db";

/// Sends reads of the ledger to the primary.
struct FreshLedger;

impl Router for FreshLedger {
    fn route(&self, situation: &Situation<'_>) -> Route {
        if situation.sql().contains("`ledger`") {
            Route::Primary
        } else {
            ForwardWrites.route(situation)
        }
    }
}

fn builder(node: &Node) -> LiteFsBuilder {
    LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()))
        .listen(([127, 0, 0, 1], 0).into())
}

fn main() -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
    let primary = builder(cluster.node("primary")).start()?;
    // Local reads may be stale: only the router keeps reads of the ledger fresh.
    let replica = builder(cluster.node("replica"))
        .router(FreshLedger)
        .consistency(Consistency::Eventual)
        .start()?;
    let (mut there, mut here) = (primary.establish()?, replica.establish()?);
    diesel::sql_query("CREATE TABLE ledger (id INTEGER PRIMARY KEY, amount BIGINT NOT NULL)")
        .execute(&mut there)?;
    diesel::sql_query("CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        .execute(&mut there)?;
    cluster.wait_for_sync(std::time::Duration::from_secs(5))?;

    // From here on the replica is behind.
    cluster.node("replica").stall_replication()?;
    diesel::insert_into(ledger::table).values(ledger::amount.eq(100)).execute(&mut there)?;
    diesel::insert_into(articles::table).values(articles::title.eq("News")).execute(&mut there)?;
    let amounts: Vec<i64> = ledger::table.select(ledger::amount).load(&mut here)?;
    let titles: Vec<String> = articles::table.select(articles::title).load(&mut here)?;

    assert_eq!(amounts, [100], "the ledger is read on the primary");
    assert!(titles.is_empty(), "articles are read locally and are stale");
    assert_eq!(replica.round_trips(), 1);
    println!("on a replica that is behind: ledger {amounts:?}, articles {titles:?}");
    Ok(())
}
