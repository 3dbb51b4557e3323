//! The other processes of the `forward` bench: two primaries, one with the library's server and one with the bare one.

use std::net::SocketAddr;
use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_diesel::LiteFs;
use litefs_testkit::Node;
use serde::{Deserialize, Serialize};

use super::{DATABASE, bare, items};
use crate::{Problem, process};

/// What the process says first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// Base URL of LiteFS's HTTP server.
    pub(super) litefs: String,
}

/// What it says when it is the primary and its server listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Where the bare server listens; the library's is found by itself.
    pub(super) bare: Option<SocketAddr>,
}

/// Serves forwarded writes until the parent process ends.
pub(super) fn run_litefs() -> Result<(), Problem> {
    let (_root, node) = primary()?;
    drop(table(&node)?);
    let _litefs = LiteFs::builder(&node.database_url(DATABASE))
        .from_env()
        .tracker(|tracker| {
            tracker.http_url(&node.http_url()).require_litefs(true).detectors(super::AS_ON_FUSE)
        })
        .listen(([127, 0, 0, 1], 0).into())
        .start()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let ended = process::parent_ended();
        process::say(&Ready { bare: None })?;
        Ok(ended.await?)
    })
}

/// Serves bare calls until the parent process ends. Nothing of the library runs here.
pub(super) fn run_bare() -> Result<(), Problem> {
    let (_root, node) = primary()?;
    let connection = table(&node)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let ended = process::parent_ended();
        let listener = process::free_port().await?;
        process::say(&Ready { bare: Some(listener.local_addr()?) })?;
        tokio::select! {
            served = bare::serve(listener, connection) => served,
            _ = ended => Ok(()),
        }
    })
}

/// A node that is the primary, and its directory. The parent makes it the primary.
fn primary() -> Result<(tempfile::TempDir, Node), Problem> {
    let root = tempfile::Builder::new().prefix("bench-").tempdir()?;
    let node = Node::builder("primary").dir(root.path().join("primary")).database(DATABASE).start()?;
    process::say(&Mounted { litefs: node.http_url() })?;
    node.wait_until(Duration::from_secs(20), |now| now.is_primary && now.positions.contains_key(DATABASE))?;
    Ok((root, node))
}

fn table(node: &Node) -> Result<SqliteConnection, Problem> {
    let mut connection = SqliteConnection::establish(&node.database_url(DATABASE))?;
    connection.batch_execute("PRAGMA busy_timeout = 5000")?;
    connection.batch_execute(items::DDL)?;
    Ok(connection)
}
