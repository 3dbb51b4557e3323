//! Several nodes, the links between them, and changes of the primary.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use crate::command::Command;
use crate::control::Control;
use crate::error::Error;
use crate::launch::random_id;
use crate::node::{Node, NodeBuilder};
use crate::remote::wait_for;
use crate::status::NodeStatus;

/// The default limit for role changes and for catching up.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A cluster in one process, or a view of nodes in several.
///
/// Dropping it kills the nodes of this process and removes their directories.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    // Declared after the nodes, so that they are dropped before their directory is removed.
    _root: Option<TempDir>,
}

#[derive(Debug)]
enum Member {
    Local(Node),
    Remote(Control),
}

impl Member {
    fn control(&self) -> &Control {
        match self {
            Self::Local(node) => node,
            Self::Remote(control) => control,
        }
    }
}

/// Options of a [`Cluster`] in one process.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct ClusterBuilder {
    nodes: Vec<String>,
    databases: Vec<String>,
}

impl ClusterBuilder {
    /// Names of the nodes; the first one is primary. Names may have a port. Default: `node-a` and
    /// `node-b`.
    pub fn nodes<Name: Into<String>>(mut self, names: impl IntoIterator<Item = Name>) -> Self {
        self.nodes.extend(names.into_iter().map(Into::into));
        self
    }

    /// A database that exists from the start on all nodes: empty, in WAL mode, at transaction 1.
    /// May be called several times. Default: none.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.databases.push(name.into());
        self
    }

    /// Starts the nodes in a temporary directory. Blocks until all replicas are connected and up to
    /// date.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`](crate::NodeBuilder::start); [`Error::Invalid`] if two nodes have
    /// the same name.
    pub fn start(mut self) -> Result<Cluster, Error> {
        if self.nodes.is_empty() {
            self.nodes = vec!["node-a".into(), "node-b".into()];
        }
        let mut names = self.nodes.clone();
        names.sort_unstable();
        names.dedup();
        if names.len() != self.nodes.len() {
            return Err(Error::Invalid("nodes: two nodes have the same name".into()));
        }
        let root = tempfile::Builder::new()
            .prefix("litefs-testkit-")
            .tempdir()
            .map_err(Error::io("create a directory"))?;
        let cluster_id = format!("LFSC{}", random_id());
        let start = |name: &String| {
            let node = Node::builder(name).dir(root.path().join(name)).cluster_id(&cluster_id);
            self.databases.iter().fold(node, NodeBuilder::database).start().map(Member::Local)
        };
        let members = self.nodes.iter().map(start).collect::<Result<_, _>>()?;
        let cluster = Cluster { members, _root: Some(root) };
        cluster.promote(&self.nodes[0])?;
        Ok(cluster)
    }
}

impl Cluster {
    /// Options of a cluster in this process.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A view of nodes that other processes host, by their [`Control::http_url`]s. The nodes keep
    /// their roles; call [`Cluster::promote`] if none of them is the primary.
    ///
    /// # Errors
    /// [`Error::Remote`] if a node does not answer.
    pub fn attach<Url: Into<String>>(
        http_urls: impl IntoIterator<Item = Url>,
    ) -> Result<Self, Error> {
        let members = http_urls.into_iter().map(|url| Control::attach(url).map(Member::Remote));
        Ok(Self { members: members.collect::<Result<_, _>>()?, _root: None })
    }

    /// The node called `name`.
    ///
    /// # Panics
    /// If this process hosts no such node.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes()
            .find(|node| node.name() == name)
            .unwrap_or_else(|| panic!("this process hosts no node {name:?}"))
    }

    /// The nodes that this process hosts, in the order given to the builder.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.members.iter().filter_map(|member| match member {
            Member::Local(node) => Some(node),
            Member::Remote(_) => None,
        })
    }

    /// All nodes of the view, in this process and in others.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.members.iter().map(Member::control)
    }

    /// The node called `name`, in this process or in another.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] if there is no such node.
    pub fn control(&self, name: &str) -> Result<&Control, Error> {
        let found = self.controls().find(|control| control.name() == name);
        found.ok_or_else(|| Error::UnknownNode(name.to_owned()))
    }

    fn local(&self, name: &str) -> Result<&Node, Error> {
        let found = self.nodes().find(|node| node.name() == name);
        found.ok_or_else(|| Error::UnknownNode(name.to_owned()))
    }

    /// The primary, if it is a node of this process.
    #[must_use]
    pub fn primary(&self) -> Option<&Node> {
        self.nodes().find(|node| node.is_primary())
    }

    /// The primary, in this process or in another.
    #[must_use]
    pub fn primary_control(&self) -> Option<&Control> {
        self.controls().find(|control| control.is_primary())
    }

    /// Makes `name` primary without losing a transaction: the old primary, if it is alive, first
    /// stops writing and ships the rest. Blocks until the other nodes follow and are up to date,
    /// except those that are stalled or cut off.
    ///
    /// # Errors
    /// [`Error::Timeout`] after 10 seconds if `name` does not receive everything (the old primary
    /// is then primary again), or if the other nodes do not follow.
    pub fn promote(&self, name: &str) -> Result<(), Error> {
        let successor = self.control(name)?;
        if let Some(old) = self.primary_control().filter(|old| old.name() != name) {
            old.drain()?;
            let last = old.status()?;
            if let Err(error) =
                successor.wait_until(SETTLE_LIMIT, |status| caught_up(status, &last))
            {
                old.become_primary()?;
                return Err(error);
            }
        }
        successor.become_primary()?;
        self.follow(successor)
    }

    /// Makes `name` primary as a failover does that loses the last `lost` transactions of every
    /// database: the node receives everything before them, even if its replication is stalled, and
    /// drops them if it has them. The old primary and the other nodes then receive a snapshot,
    /// which takes them back to an earlier position. `lost` is counted from the primary's position,
    /// or if the primary is dead, from the furthest position of any node of the view.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a database has fewer transactions than `lost`,
    /// [`Error::HistoryTooShort`] if the node cannot go back that far, else as
    /// [`Cluster::promote`].
    pub fn promote_losing_tail(&self, name: &str, lost: u64) -> Result<(), Error> {
        let successor = self.control(name)?;
        let old = self.primary_control().filter(|old| old.name() != name);
        old.map_or(Ok(()), Control::drain)?;
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (database, position) in
            self.controls().filter_map(|node| node.status().ok()).flat_map(|s| s.positions)
        {
            let txid = last.entry(database).or_default();
            *txid = position.txid.max(*txid);
        }
        let shorter = |(database, txid): (String, u64)| match txid.checked_sub(lost) {
            Some(txid) if txid > 0 => Ok((database, txid)),
            _ => Err(Error::Invalid(format!("lost: {database:?} has only {txid} transactions"))),
        };
        let back_to = last.into_iter().map(shorter).collect::<Result<BTreeMap<_, _>, _>>()?;
        if old.is_some() {
            successor.send(Command::PassUntil(back_to.clone()))?;
            successor.wait_until(SETTLE_LIMIT, |status| has(status, &back_to))?;
        }
        successor.send(Command::BecomePrimary { back_to })?;
        self.follow(successor)
    }

    /// Makes every living node follow `primary` and waits until they do.
    fn follow(&self, primary: &Control) -> Result<(), Error> {
        for control in
            self.controls().filter(|control| control.name() != primary.name() && control.is_alive())
        {
            control.follow(primary)?;
        }
        self.wait_for_sync(SETTLE_LIMIT)
    }

    /// Takes the lease away: no node is the primary or knows one.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn lose_primary(&self) -> Result<(), Error> {
        self.controls().filter(|control| control.is_alive()).try_for_each(Control::lose_primary)
    }

    /// Kills a node of this process; see [`Node::kill`]. No node takes over until
    /// [`Cluster::promote`]: replicas of a dead primary try it once a second.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] if this process has no such node.
    pub fn kill(&self, name: &str) -> Result<(), Error> {
        self.local(name)?.kill();
        Ok(())
    }

    /// Restarts a killed node of this process. It follows the primary, if there is one; blocks
    /// until it has caught up, unless it is stalled or cut off.
    ///
    /// # Errors
    /// As [`Node::restart`]; [`Error::Timeout`] if it does not catch up in 10 seconds.
    pub fn restart(&self, name: &str) -> Result<(), Error> {
        let node = self.local(name)?;
        node.restart()?;
        let Some(primary) = self.primary_control() else { return Ok(()) };
        node.follow(primary)?;
        self.wait_for_sync(SETTLE_LIMIT)
    }

    /// Cuts the link between two nodes: no data arrives, no connection is closed, new connections
    /// time out.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] if there is no such node.
    pub fn cut(&self, one: &str, other: &str) -> Result<(), Error> {
        self.control(one)?.cut_link(other)?;
        self.control(other)?.cut_link(one)
    }

    /// Ends [`Cluster::cut`]; data that was held back arrives.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] if there is no such node.
    pub fn heal(&self, one: &str, other: &str) -> Result<(), Error> {
        self.control(one)?.heal_link(other)?;
        self.control(other)?.heal_link(one)
    }

    /// Blocks until every living replica is connected and at the primary's position, except
    /// replicas that are stalled, frozen or cut off from the primary.
    ///
    /// # Errors
    /// [`Error::NoPrimary`] if there is none; [`Error::Timeout`] after `timeout`.
    pub fn wait_for_sync(&self, timeout: Duration) -> Result<(), Error> {
        let primary = self.primary_control().ok_or(Error::NoPrimary)?;
        wait_for(timeout, "the replicas to be at the primary's position", || {
            let Ok(status) = primary.status() else { return false };
            let replicas = self.controls().filter(|control| control.name() != primary.name());
            replicas
                .filter_map(|control| control.status().ok())
                .all(|replica| in_sync(&replica, &status))
        })
    }
}

fn in_sync(replica: &NodeStatus, primary: &NodeStatus) -> bool {
    let cut = replica.cut.contains(&primary.peer.name) || primary.cut.contains(&replica.peer.name);
    let excused = !replica.alive || replica.stalled || replica.frozen || primary.frozen || cut;
    let follows = replica.primary.as_ref() == Some(&primary.peer.name) && replica.connected;
    excused || (follows && caught_up(replica, primary))
}

fn caught_up(replica: &NodeStatus, primary: &NodeStatus) -> bool {
    primary.positions.iter().all(|(name, position)| replica.positions.get(name) == Some(position))
}

fn has(status: &NodeStatus, txids: &BTreeMap<String, u64>) -> bool {
    txids.iter().all(|(name, txid)| {
        status.positions.get(name).is_some_and(|position| position.txid >= *txid)
    })
}
