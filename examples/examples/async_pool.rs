//! An asynchronous application on a replica: `diesel_async` with a deadpool pool, and one of bb8.
//!
//! `SyncConnectionWrapper` runs the connection on tokio's blocking threads, so a task that waits
//! for the primary does not block others. The pools are made from the handle (litefs-diesel's
//! feature `async`). Calls that `diesel_async` does not have go through `spawn_blocking`.
//!
//! `cargo run -p litefs-examples --example async_pool`

use diesel::prelude::*;
use diesel_async::pooled_connection::bb8;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncConnection, RunQueryDsl};
use libsqlite3_sys as _;
use litefs_diesel::{AsyncLiteFsConnection, LiteFs};
use litefs_testkit::{Cluster, Node};

diesel::table! {
    /// Accounts.
    accounts (id) {
        /// Number.
        id -> Integer,
        /// The balance.
        balance -> Integer,
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;
// Was `SyncConnectionWrapper<SqliteConnection>`.
type Conn = AsyncLiteFsConnection;

const DATABASE: &str = "app.db";
const TRANSFERS: i32 = 40;

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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let balances = runtime.block_on(application(&replica))?;
    assert_eq!(balances, [100 - TRANSFERS, TRANSFERS]);
    println!("{}: {TRANSFERS} transfers in {} round trips", replica.role(), replica.round_trips());
    Ok(())
}

async fn application(litefs: &LiteFs) -> Result<Vec<i32>, Problem> {
    let pool = Pool::builder(litefs.async_connection_manager()).max_size(4).build()?;
    let mut conn = pool.get().await?;
    diesel::sql_query("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        .execute(&mut conn)
        .await?;
    // Several statements in one request.
    conn.spawn_blocking(|conn| {
        let account = |id, balance| {
            diesel::insert_into(accounts::table)
                .values((accounts::id.eq(id), accounts::balance.eq(balance)))
        };
        conn.execute_batch(&[&account(1, 100), &account(2, 0)])
    })
    .await?;
    drop(conn);
    let transfers: Vec<_> = (0..TRANSFERS).map(|_| tokio::spawn(transfer(pool.clone()))).collect();
    for transfer in transfers {
        transfer.await??;
    }
    // A pool of bb8 is made the same way.
    let pool =
        bb8::Pool::<Conn>::builder().max_size(4).build(litefs.async_connection_manager()).await?;
    let mut conn = pool.get().await?;
    Ok(accounts::table.select(accounts::balance).order(accounts::id).load(&mut conn).await?)
}

/// One transaction, on the primary from its first statement on.
async fn transfer(pool: Pool<Conn>) -> Result<(), Problem> {
    let mut conn = pool.get().await?;
    conn.transaction(async |conn| {
        for (id, change) in [(1, -1), (2, 1)] {
            diesel::update(accounts::table.find(id))
                .set(accounts::balance.eq(accounts::balance + change))
                .execute(conn)
                .await?;
        }
        QueryResult::Ok(())
    })
    .await?;
    Ok(())
}
