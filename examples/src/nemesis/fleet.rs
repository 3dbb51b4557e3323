//! The processes of the embedded cluster: started, killed, put to sleep and woken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use litefs_testkit::{Control, EventStreamFault, NodeStatus};
use rand::Rng;
use rustix::process::Signal;
use tempfile::TempDir;

use super::Weakness;
use super::client::{Endpoint, Shared};
use super::history::{Moment, Process};
use super::link::{Flow, Link};
use super::losses::Reports;
use super::node::{DATABASE, Lost, Mounted, Serving};
use crate::Problem;
use crate::process::{Child, Listening};

/// The nodes' names; the first one begins as the primary.
pub(super) const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// All nodes' machines, whether or not a process runs on them.
pub(super) struct Fleet {
    machines: Vec<Machine>,
    shared: Arc<Shared>,
    /// How the nodes break a promise on purpose.
    weaken: Option<Weakness>,
    secret: String,
    /// What the processes reported as lost.
    reports: Reports,
    /// When processes were killed.
    ends: HashMap<Process, Moment>,
    // After the processes, so that nobody uses it any more when it goes.
    root: TempDir,
}

struct Machine {
    running: Option<Running>,
    asleep: bool,
    incarnation: u64,
    link: Link,
}

struct Running {
    child: Child,
    control: Control,
}

impl Fleet {
    /// Machines on which nothing runs yet.
    pub(super) async fn new(shared: Arc<Shared>, weaken: Option<Weakness>) -> Result<Self, Problem> {
        let mut machines = Vec::new();
        for _ in NAMES {
            machines.push(Machine {
                running: None,
                asleep: false,
                incarnation: 0,
                link: Link::open().await?,
            });
        }
        let root = tempfile::Builder::new().prefix("nemesis-").tempdir()?;
        // The secret never appears on a command line, which every user of the machine can read.
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        Ok(Self { machines, shared, weaken, secret, reports: Reports::default(), ends: HashMap::new(), root })
    }

    /// Starts a process on a node's files. Its LiteFS runs then and waits for a role; see [`Fleet::settle`].
    pub(super) fn start(&mut self, node: usize) -> Result<(), Problem> {
        let dir = self.root.path().join(NAMES[node]).to_string_lossy().into_owned();
        let advertise = self.machines[node].link.address().to_string();
        let mut arguments = vec!["node", "--name", NAMES[node], "--dir", &dir, "--advertise", &advertise];
        arguments.extend(match self.weaken {
            Some(Weakness::Eventual) => Some("--eventual"),
            Some(Weakness::RetryUnknown) => Some("--at-most-once"),
            Some(Weakness::Proof) => Some("--unproven"),
            None => None,
        });
        let mut child = Child::start(NAMES[node], &arguments, &[("LITEFS_RPC_SECRET", &self.secret)])?;
        let control = Control::attach(child.hear::<Mounted>()?.litefs)?;
        // Another node that is cut off from the one before would keep this one from starting.
        self.reachable()
            .into_iter()
            .try_for_each(|other| self.control(other)?.heal_link(NAMES[node]).map_err(Problem::from))?;
        let machine = &mut self.machines[node];
        machine.running = Some(Running { child, control });
        machine.incarnation += 1;
        Ok(())
    }

    /// Waits until the application of a started node answers. The node must have a role.
    pub(super) fn settle(&mut self, node: usize) -> Result<(), Problem> {
        let machine = &mut self.machines[node];
        let running = machine.running.as_mut().ok_or("a node without a process cannot settle")?;
        let rpc = running.child.hear::<Serving>()?.rpc;
        machine.link.lead_to(rpc);
        let url = running.child.hear::<Listening>()?.http;
        let (incarnation, reports) = (machine.incarnation, self.reports.clone());
        running.child.overhear(move |lost: Lost| reports.hear((node, incarnation), lost.lost));
        self.shared.set_endpoint(node, Some(Endpoint { incarnation, url }));
        Ok(())
    }

    /// `kill -9`. Does nothing where no process runs.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Problem> {
        self.shared.set_endpoint(node, None);
        let machine = &mut self.machines[node];
        machine.asleep = false;
        let Some(running) = machine.running.take() else { return Ok(()) };
        self.ends.insert((node, machine.incarnation), self.shared.now());
        running.child.kill()
    }

    /// What the processes of all nodes reported as lost.
    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Which processes were killed, and when.
    pub(super) fn ends(&self) -> &HashMap<Process, Moment> {
        &self.ends
    }

    /// SIGSTOP.
    pub(super) fn put_to_sleep(&mut self, node: usize) -> Result<(), Problem> {
        self.signal(node, Signal::STOP)?;
        self.machines[node].asleep = true;
        Ok(())
    }

    /// SIGCONT. Does nothing to a node that is awake.
    pub(super) fn wake(&mut self, node: usize) -> Result<(), Problem> {
        if !std::mem::take(&mut self.machines[node].asleep) {
            return Ok(());
        }
        self.signal(node, Signal::CONT)?;
        // Faults that ended meanwhile could not be told.
        self.clear_faults(node)
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<(), Problem> {
        let running = self.machines[node].running.as_ref();
        running.ok_or("no process to send a signal to")?.child.signal(signal)
    }

    /// Ends everything that was made to go wrong on a node and with its link.
    pub(super) fn clear_faults(&self, node: usize) -> Result<(), Problem> {
        self.machines[node].link.set(Flow::default(), Flow::default());
        // A dead LiteFS comes back without them.
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

    /// Whether a process runs there and is awake.
    pub(super) fn is_reachable(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        machine.running.is_some() && !machine.asleep
    }

    /// Nodes whose processes run and are awake.
    pub(super) fn reachable(&self) -> Vec<usize> {
        (0..NAMES.len()).filter(|node| self.is_reachable(*node)).collect()
    }

    /// Whether its LiteFS answers.
    pub(super) fn is_alive(&self, node: usize) -> bool {
        self.is_reachable(node) && self.control(node).is_ok_and(|control| control.is_alive())
    }

    /// Nodes whose LiteFS answers.
    pub(super) fn alive(&self) -> Vec<usize> {
        (0..NAMES.len()).filter(|node| self.is_alive(*node)).collect()
    }

    /// Nodes whose processes run but whose LiteFS has died.
    pub(super) fn dead(&self) -> Vec<usize> {
        self.reachable().into_iter().filter(|node| !self.is_alive(*node)).collect()
    }

    /// The handle that makes things go wrong on a node.
    pub(super) fn control(&self, node: usize) -> Result<&Control, Problem> {
        let running = self.machines[node].running.as_ref();
        Ok(&running.ok_or_else(|| format!("{} has no process", NAMES[node]))?.control)
    }

    /// Where a node's database is.
    pub(super) fn txid(&self, node: usize) -> Result<u64, Problem> {
        Ok(txid(&self.control(node)?.status()?))
    }

    /// The node that has come furthest, of those that can be asked.
    pub(super) fn furthest(&self) -> Result<usize, Problem> {
        let txids = self.alive().into_iter().map(|node| Ok((self.txid(node)?, node)));
        let txids = txids.collect::<Result<Vec<_>, Problem>>()?;
        txids.into_iter().max().map(|(_, node)| node).ok_or_else(|| "no node is left".into())
    }

    /// The link to a node's server.
    pub(super) fn link(&self, node: usize) -> &Link {
        &self.machines[node].link
    }
}

/// Where the database is.
pub(super) fn txid(status: &NodeStatus) -> u64 {
    status.positions.get(DATABASE).map_or(0, |position| position.txid)
}
