//! The three processes, as the driver uses them.

use std::time::Duration;

use litefs_testkit::Cluster;
use rand::Rng;

use super::node::Mounted;
use crate::Problem;
use crate::process::{Child, Listening};

/// The nodes' names; the first one is the primary at the start.
pub(super) const NAMES: [&str; 2] = ["node-a", "node-b"];
/// How long a replica may take to catch up after the last write.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// The running upstream and nodes. Dropping it ends them.
pub(super) struct Processes {
    litefs: Cluster,
    urls: [String; 2],
    // Declared before the upstream that they download from, so that they end first.
    _nodes: [Child; 2],
    _upstream: Child,
}

impl Processes {
    /// Starts everything. Blocks until both applications answer.
    pub(super) fn start() -> Result<Self, Problem> {
        let mut upstream = Child::start("upstream", &["upstream"], &[])?;
        let from = upstream.receive::<Listening>()?.http;
        // The secret is not passed on the command line, which every user of the machine can read.
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        let start = |name| {
            let arguments = ["node", "--name", name, "--upstream", &from];
            Child::start(name, &arguments, &[("LITEFS_RPC_SECRET", &secret)])
        };
        let mut nodes = [start(NAMES[0])?, start(NAMES[1])?];
        let [a, b] = &mut nodes;
        let litefs =
            Cluster::attach([a.receive::<Mounted>()?.litefs, b.receive::<Mounted>()?.litefs])?;
        litefs.promote(NAMES[0])?;
        let urls = [a.receive::<Listening>()?.http, b.receive::<Listening>()?.http];
        Ok(Self { litefs, urls, _nodes: nodes, _upstream: upstream })
    }

    /// Base URLs of the two applications.
    pub(super) fn urls(&self) -> &[String; 2] {
        &self.urls
    }

    /// Makes the replica the primary by a handoff. Blocks until the old one follows.
    pub(super) fn promote_replica(&self) -> Result<&'static str, Problem> {
        self.litefs.promote(NAMES[1])?;
        let promoted = self.litefs.control(NAMES[1])?.is_primary();
        promoted
            .then_some(NAMES[1])
            .ok_or_else(|| format!("{} did not become the primary", NAMES[1]).into())
    }

    /// Blocks until both nodes have the same data.
    pub(super) fn wait_for_sync(&self) -> Result<(), Problem> {
        Ok(self.litefs.wait_for_sync(SYNC_LIMIT)?)
    }
}
