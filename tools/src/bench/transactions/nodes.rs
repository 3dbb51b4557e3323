//! A primary and its replicas, all in this process, with a slow link between them.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use litefs_core::Role;
use litefs_diesel::{LiteFs, LiteFsBuilder, LiteFsConnection};
use litefs_examples::Problem;
use litefs_testkit::{Cluster, Flow, Node, Relay};

use super::work;
use crate::bench::node::{AS_ON_FUSE, DATABASE};
use crate::bench::server::Synchronous;

/// How long the nodes may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The handles of a primary and its replicas.
pub(super) struct Nodes {
    // Declared before the cluster, so that they end before its files are removed.
    replicas: Vec<LiteFs>,
    primary: LiteFs,
    link: Relay,
    cluster: Cluster,
}

impl Nodes {
    /// The replicas reach the primary's server over one link, without a delay.
    pub(super) fn start(replicas: &[&str]) -> Result<Self, Problem> {
        let names = std::iter::once("primary").chain(replicas.iter().copied());
        let cluster = Cluster::builder().nodes(names).database(DATABASE).start()?;
        for node in cluster.nodes() {
            node.set_sync(true)?;
        }
        let link = Relay::start()?;
        let server = builder(cluster.node("primary"))
            .listen(([127, 0, 0, 1], 0).into())
            .advertise(link.address().to_string());
        let primary = server.start()?;
        link.set_target(primary.rpc_address().ok_or("the primary does not serve")?);
        work::create(&mut primary.establish()?)?;
        let replicas = replicas
            .iter()
            .map(|name| Ok(builder(cluster.node(name)).serve(false).start()?))
            .collect::<Result<Vec<_>, Problem>>()?;
        cluster.wait_for_sync(START_LIMIT)?;
        let nodes = Self { replicas, primary, link, cluster };
        nodes.await_address()?;
        Ok(nodes)
    }

    /// A connection to the primary's own file.
    pub(super) fn primary(&self) -> Result<LiteFsConnection, Problem> {
        Ok(self.primary.establish()?)
    }

    /// The handle of a replica.
    pub(super) fn replica(&self, number: usize) -> &LiteFs {
        &self.replicas[number]
    }

    /// Sets the round trip between replicas and primary. A half is the way of requests, a half that
    /// of replies and of replicated transactions.
    pub(super) fn set_round_trip(&self, round_trip: Duration) -> Result<(), Problem> {
        let way = Flow { delay: round_trip / 2, ..Flow::default() };
        self.link.set(way, way);
        for node in self.cluster.nodes() {
            node.set_replication_delay(round_trip / 2)?;
        }
        Ok(())
    }

    fn await_address(&self) -> Result<(), Problem> {
        let (deadline, expected) = (Instant::now() + START_LIMIT, self.link.address().to_string());
        let knows = |replica: &LiteFs| match replica.role() {
            Role::Replica { primary: named } => {
                named.as_ref() == "primary" && replica.tracker().rpc_address(&named) == expected
            }
            _ => false,
        };
        while !self.replicas.iter().all(knows) {
            if Instant::now() > deadline {
                return Err("a replica does not find the primary".into());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

fn builder(node: &Node) -> LiteFsBuilder {
    let (http_url, name) = (node.http_url(), node.name().to_owned());
    LiteFs::builder(&node.database_url(DATABASE))
        .tracker(move |tracker| {
            tracker.http_url(&http_url).node(&name).require_litefs(true).detectors(AS_ON_FUSE)
        })
        .on_connection(|connection: &mut SqliteConnection| Synchronous::Normal.set(connection))
}
