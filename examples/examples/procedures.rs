//! A remote procedure: a transfer between accounts that must look at both, from a replica in one
//! round trip.
//!
//! `cargo run -p litefs-examples --example procedures`

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use libsqlite3_sys as _;
use litefs_diesel::{LiteFs, Procedure};
use litefs_testkit::{Cluster, Node};
use serde::{Deserialize, Serialize};

diesel::table! {
    /// Accounts.
    account (id) {
        /// Number.
        id -> Integer,
        /// In cents.
        balance -> BigInt,
    }
}

type Problem = Box<dyn std::error::Error>;

const DATABASE: &str = "bank.db";

/// The arguments of a transfer.
#[derive(Debug, Serialize, Deserialize)]
struct Transfer {
    from: i32,
    to: i32,
    cents: i64,
}

/// The balances after a transfer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    from: i64,
    to: i64,
}

/// Runs on the primary, in one transaction. Its queries are local there.
static TRANSFER: Procedure<Transfer, Receipt> = Procedure::new("transfer", |conn, transfer| {
    let Transfer { from, to, cents } = transfer;
    let balance: i64 = account::table.find(from).select(account::balance).get_result(conn)?;
    if balance < cents {
        return Err(Error::RollbackTransaction);
    }
    let add = |conn: &mut SqliteConnection, id: i32, cents: i64| {
        diesel::update(account::table.find(id))
            .set(account::balance.eq(account::balance + cents))
            .returning(account::balance)
            .get_result(conn)
    };
    Ok(Receipt { from: add(conn, from, -cents)?, to: add(conn, to, cents)? })
});

/// Every node registers the procedure: any of them may be the primary.
fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()))
        .listen(([127, 0, 0, 1], 0).into())
        .procedure(&TRANSFER)
        .start()?)
}

fn main() -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
    let primary = start(cluster.node("primary"))?;
    let replica = start(cluster.node("replica"))?;
    primary.establish()?.batch_execute(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL); \
         INSERT INTO account VALUES (1, 1000), (2, 0)",
    )?;
    cluster.wait_for_sync(Duration::from_secs(5))?;

    let mut conn = replica.establish()?;
    let before = replica.round_trips();
    let receipt = conn.call(&TRANSFER, &Transfer { from: 1, to: 2, cents: 300 })?;
    let round_trips = replica.round_trips() - before;
    println!("{receipt:?} in {round_trips} round trip");
    assert_eq!(receipt, Receipt { from: 700, to: 300 });

    let refused = conn.call(&TRANSFER, &Transfer { from: 1, to: 2, cents: 900 });
    println!("too much: {refused:?}");
    assert_eq!(refused, Err(Error::RollbackTransaction));

    let unknown = conn.call(&TRANSFER, &Transfer { from: 3, to: 2, cents: 1 });
    println!("no such account: {unknown:?}");
    assert_eq!(unknown, Err(Error::NotFound));
    Ok(())
}
