//! A node: an embedded LiteFS and the application on it, in one process.

use std::time::Duration;

use clap::Args;
use litefs_diesel::LiteFs;
use litefs_testkit::Node;
use serde::{Deserialize, Serialize};

use crate::app::{self, App};
use crate::process::{self, Listening};
use crate::{Problem, telemetry};

/// The database on both nodes.
const DATABASE: &str = "app.db";
/// How long a node may wait for a primary and a copy of the database.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The arguments of a node.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The node's name.
    #[arg(long)]
    name: String,
    /// The service that the application downloads from.
    #[arg(long)]
    upstream: String,
}

/// The first message of a node: its LiteFS runs, and the cluster can be formed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// Base URL of LiteFS's HTTP server.
    pub(super) litefs: String,
}

/// Serves until the parent process ends. The shared secret of the cluster is in the environment.
pub(super) fn run(arguments: &Arguments) -> Result<(), Problem> {
    telemetry::watch();
    let root = tempfile::Builder::new().prefix("two-nodes-").tempdir()?;
    let node = Node::builder(&arguments.name)
        .dir(root.path().join(&arguments.name))
        .database(DATABASE)
        .start()?;
    process::send(&Mounted { litefs: node.http_url() })?;
    // `litefs mount` also starts the application only when the node is ready.
    node.wait_until(START_LIMIT, |now| {
        (now.is_primary || now.connected) && now.positions.contains_key(DATABASE)
    })?;
    let litefs = LiteFs::builder(&node.database_url(DATABASE))
        .from_env()
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .listen(([127, 0, 0, 1], 0).into());
    let app = App::start(litefs, arguments.upstream.clone())?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = process::free_port().await?;
        process::send(&Listening { http: process::url_of(&listener)? })?;
        process::serve(listener, app::router(app)).await
    })
}
