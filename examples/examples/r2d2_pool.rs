//! A connection pool on a replica, and writes through it.
//!
//! `litefs-testkit` stands in for LiteFS, with both nodes in this process. In production one
//! `LiteFs` runs per node, and `LiteFs::start("/litefs/app.db")` is all that it needs.
//!
//! `cargo run -p litefs-examples --example r2d2_pool`

use std::time::Duration;

use diesel::prelude::*;
use libsqlite3_sys as _;
use litefs_diesel::LiteFs;
use litefs_testkit::{Cluster, Node};

diesel::table! {
    /// Visits to pages.
    visits (id) {
        /// Number.
        id -> Integer,
        /// Which page.
        page -> Text,
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

const DATABASE: &str = "app.db";
const THREADS: usize = 4;
const VISITS: usize = 25;

fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()))
        .listen(([127, 0, 0, 1], 0).into())
        .start()?)
}

fn main() -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
    let _primary = start(cluster.node("primary"))?;
    let replica = start(cluster.node("replica"))?;

    // Was `r2d2::Pool::builder().build(ConnectionManager::<SqliteConnection>::new(path))`.
    let pool =
        r2d2::Pool::builder().max_size(THREADS as u32).build(replica.connection_manager())?;
    diesel::sql_query("CREATE TABLE visits (id INTEGER PRIMARY KEY, page TEXT NOT NULL)")
        .execute(&mut *pool.get()?)?;

    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..THREADS)
            .map(|visitor| {
                let pool = pool.clone();
                scope.spawn(move || visit(&pool, &format!("page {visitor}")))
            })
            .collect();
        visitors
            .into_iter()
            .try_for_each(|visitor| visitor.join().map_err(|_| "a visitor panicked")?)
    })?;

    let counted: i64 = visits::table.count().get_result(&mut *pool.get()?)?;
    assert_eq!(counted, (THREADS * VISITS) as i64);
    assert!(replica.role().primary().is_some());
    cluster.wait_for_sync(Duration::from_secs(5))?;
    println!("{}: {counted} visits in {} round trips", replica.role(), replica.round_trips());
    Ok(())
}

/// Writes, then reads the write back, on connections of the pool.
fn visit(pool: &r2d2::Pool<litefs_diesel::ConnectionManager>, page: &str) -> Result<(), Problem> {
    for number in 1..=VISITS {
        diesel::insert_into(visits::table)
            .values(visits::page.eq(page))
            .execute(&mut *pool.get()?)?;
        let seen: i64 =
            visits::table.filter(visits::page.eq(page)).count().get_result(&mut *pool.get()?)?;
        assert_eq!(seen, number as i64);
    }
    Ok(())
}
