//! Read on one node what was written on another: the position of the write is sent with the
//! request, in a cookie or a header.
//!
//! `cargo run -p litefs-examples --example read_after`

use std::time::Duration;

use diesel::prelude::*;
use libsqlite3_sys as _;
use litefs_diesel::{LiteFs, Position};
use litefs_testkit::{Cluster, Node};

diesel::table! {
    /// The items of carts.
    carts (id) {
        /// Number.
        id -> Integer,
        /// The article.
        article -> Text,
    }
}

type Problem = Box<dyn std::error::Error>;

const DATABASE: &str = "shop.db";

fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()))
        .listen(([127, 0, 0, 1], 0).into())
        .start()?)
}

fn main() -> Result<(), Problem> {
    let cluster =
        Cluster::builder().nodes(["primary", "paris", "tokyo"]).database(DATABASE).start()?;
    let _primary = start(cluster.node("primary"))?;
    let (paris, tokyo) = (start(cluster.node("paris"))?, start(cluster.node("tokyo"))?);
    let (mut in_paris, mut in_tokyo) = (paris.establish()?, tokyo.establish()?);
    diesel::sql_query("CREATE TABLE carts (id INTEGER PRIMARY KEY, article TEXT NOT NULL)")
        .execute(&mut in_paris)?;
    cluster.wait_for_sync(Duration::from_secs(5))?;

    // Replication to Tokyo is delayed.
    cluster.node("tokyo").stall_replication()?;

    // A request to Paris writes. Its response has the position.
    diesel::insert_into(carts::table).values(carts::article.eq("a hat")).execute(&mut in_paris)?;
    let cookie: String = paris.position().ok_or("a position after a write")?.to_string();

    // Without the position, reads in Tokyo do not wait for the write.
    let before: Vec<String> = carts::table.select(carts::article).load(&mut in_tokyo)?;

    cluster.node("tokyo").set_replication_delay(Duration::from_millis(50))?;
    cluster.node("tokyo").resume_replication()?;

    // The next request of the same user reaches Tokyo with the position: its reads wait.
    let position: Position = cookie.parse()?;
    tokyo.read_after(position);
    let after: Vec<String> = carts::table.select(carts::article).load(&mut in_tokyo)?;

    assert!(before.is_empty());
    assert_eq!(after, ["a hat"]);
    println!("in Tokyo, without the position: {before:?}, with {cookie}: {after:?}");
    Ok(())
}
