//! The embedded cluster's nodes: their processes, and the LiteFS in each.

use std::sync::Arc;
use std::time::Duration;

use litefs_examples::Problem;
use litefs_testkit::{Control, EventStreamFault, NodeStatus, Relay, Traffic};
use tempfile::TempDir;

use super::client::ClientContext;
use super::node::{DATABASE, Mounted};
use super::processes::Processes;
use super::weakness::Weakness;

/// The nodes' names; the first one is the primary at the start.
pub(super) const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// The places of all nodes, whether or not a process runs there.
pub(super) struct Fleet {
    processes: Processes,
    controls: Vec<Option<Control>>,
    // Declared after the processes, so that it is removed after they have ended.
    root: TempDir,
}

impl Fleet {
    /// Places without a process.
    pub(super) fn new(
        shared: Arc<ClientContext>,
        weaken: Option<Weakness>,
    ) -> Result<Self, Problem> {
        let processes = Processes::new(&NAMES.map(str::to_owned), shared, weaken)?;
        let root = tempfile::Builder::new().prefix("nemesis-").tempdir()?;
        Ok(Self { processes, controls: NAMES.map(|_| None).to_vec(), root })
    }

    /// Starts a process on a node's files. Its LiteFS then runs and waits for a role; see
    /// [`Fleet::wait_until_serving`].
    pub(super) fn start(&mut self, node: usize) -> Result<(), Problem> {
        let dir = self.root.path().join(NAMES[node]).to_string_lossy().into_owned();
        self.processes.start(node, &["--dir", &dir])?;
        let control = Control::attach(self.processes.receive::<Mounted>(node)?.litefs)?;
        // A link that was cut for the previous process would block the start of this one.
        let others = self.reachable().into_iter().filter(|other| *other != node);
        others.into_iter().try_for_each(|other| {
            self.control(other)?.heal_link(NAMES[node]).map_err(Problem::from)
        })?;
        self.controls[node] = Some(control);
        Ok(())
    }

    /// Waits until the application of a started node answers. The node must have a role.
    pub(super) fn wait_until_serving(&mut self, node: usize) -> Result<(), Problem> {
        self.processes.wait_until_serving(node)
    }

    /// `kill -9`. No effect if no process runs.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Problem> {
        self.controls[node] = None;
        self.processes.kill(node)
    }

    /// SIGSTOP.
    pub(super) fn suspend(&mut self, node: usize) -> Result<(), Problem> {
        self.processes.suspend(node)
    }

    /// SIGCONT. No effect on a node that is not stopped.
    pub(super) fn resume(&mut self, node: usize) -> Result<(), Problem> {
        // Faults that ended while it was stopped could not be removed.
        if self.processes.resume(node)? { self.clear_faults(node) } else { Ok(()) }
    }

    /// Removes all faults of a node and of its link.
    pub(super) fn clear_faults(&self, node: usize) -> Result<(), Problem> {
        self.link(node).set(Traffic::Pass, Traffic::Pass);
        // A dead LiteFS restarts without faults.
        if self.is_alive(node) {
            let control = self.control(node)?;
            control.resume_replication()?;
            control.set_replication_delay(Duration::ZERO)?;
            control.set_commit_delay(Duration::ZERO)?;
            control.set_event_stream_fault(EventStreamFault::None)?;
            NAMES.iter().try_for_each(|peer| control.heal_link(peer))?;
        }
        Ok(())
    }

    /// Nodes whose processes run and are not stopped.
    pub(super) fn reachable(&self) -> Vec<usize> {
        (0..NAMES.len()).filter(|node| self.processes.is_reachable(*node)).collect()
    }

    /// Whether its LiteFS answers.
    pub(super) fn is_alive(&self, node: usize) -> bool {
        self.processes.is_reachable(node)
            && self.control(node).is_ok_and(|control| control.is_alive())
    }

    /// Nodes whose LiteFS answers.
    pub(super) fn alive(&self) -> Vec<usize> {
        (0..NAMES.len()).filter(|node| self.is_alive(*node)).collect()
    }

    /// Nodes whose processes run but whose LiteFS has died.
    pub(super) fn dead(&self) -> Vec<usize> {
        self.reachable().into_iter().filter(|node| !self.is_alive(*node)).collect()
    }

    /// The handle that injects faults into a node.
    pub(super) fn control(&self, node: usize) -> Result<&Control, Problem> {
        let control = self.controls[node].as_ref();
        control.ok_or_else(|| format!("{} has no process", NAMES[node]).into())
    }

    /// The path of a node's database.
    pub(super) fn txid(&self, node: usize) -> Result<u64, Problem> {
        Ok(txid(&self.control(node)?.status()?))
    }

    /// The most advanced node of those that answer.
    pub(super) fn furthest(&self) -> Result<usize, Problem> {
        let txids = self.alive().into_iter().map(|node| Ok((self.txid(node)?, node)));
        let txids = txids.collect::<Result<Vec<_>, Problem>>()?;
        txids.into_iter().max().map(|(_, node)| node).ok_or_else(|| "no node answers".into())
    }

    /// The link to a node's server.
    pub(super) fn link(&self, node: usize) -> &Relay {
        self.processes.link(node)
    }

    /// The processes.
    pub(super) fn processes(&self) -> &Processes {
        &self.processes
    }
}

/// The path of the database.
pub(super) fn txid(status: &NodeStatus) -> u64 {
    status.positions.get(DATABASE).map_or(0, |position| position.txid)
}
