//! The nodes' processes, which can be started, killed, stopped and continued, each behind a link.

use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::Arc;

use litefs_examples::Problem;
use litefs_examples::process::{Child, Listening};
use litefs_testkit::Relay;
use rand::Rng;
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use super::client::{ClientContext, Endpoint};
use super::history::{Moment, Process};
use super::losses::Reports;
use super::node::{Lost, Serving};
use super::weakness::Weakness;

/// The places of all nodes, whether or not a process runs there.
pub(super) struct Processes {
    places: Vec<Place>,
    shared: Arc<ClientContext>,
    /// The promise that the nodes break on purpose.
    weaken: Option<Weakness>,
    secret: String,
    /// The losses that the processes reported.
    reports: Reports,
    /// When processes were killed.
    ends: HashMap<Process, Moment>,
}

struct Place {
    name: String,
    child: Option<Child>,
    asleep: bool,
    incarnation: u64,
    link: Relay,
}

impl Processes {
    /// Places without a process.
    pub(super) fn new(
        names: &[String],
        shared: Arc<ClientContext>,
        weaken: Option<Weakness>,
    ) -> Result<Self, Problem> {
        let mut places = Vec::new();
        for name in names {
            let link = Relay::start()?;
            places.push(Place {
                name: name.clone(),
                child: None,
                asleep: false,
                incarnation: 0,
                link,
            });
        }
        // The secret is not passed on the command line, which every user of the machine can read.
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        Ok(Self {
            places,
            shared,
            weaken,
            secret,
            reports: Reports::default(),
            ends: HashMap::new(),
        })
    }

    /// Starts a process. `where_to` are the arguments for its files.
    pub(super) fn start(&mut self, node: usize, where_to: &[&str]) -> Result<(), Problem> {
        let place = &mut self.places[node];
        let advertise = place.link.address().to_string();
        let mut arguments = vec!["node", "--name", &place.name, "--advertise", &advertise];
        arguments.extend(where_to);
        arguments.extend(match self.weaken {
            Some(Weakness::Eventual) => Some("--eventual"),
            Some(Weakness::RetryUnknown) => Some("--at-most-once"),
            Some(Weakness::Proof) => Some("--unproven"),
            None => None,
        });
        let child = Child::start(&place.name, &arguments, &[("LITEFS_RPC_SECRET", &self.secret)])?;
        place.child = Some(child);
        place.incarnation += 1;
        Ok(())
    }

    /// The next message of a node. Blocks.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, node: usize) -> Result<T, Problem> {
        self.running(node)?.receive()
    }

    /// Waits until the application of a started node answers. The node must have a role.
    pub(super) fn wait_until_serving(&mut self, node: usize) -> Result<(), Problem> {
        let child = self.running(node)?;
        let rpc = child.receive::<Serving>()?.rpc;
        let url = child.receive::<Listening>()?.http;
        let (place, reports) = (&mut self.places[node], self.reports.clone());
        let incarnation = place.incarnation;
        let listener = move |lost: Lost| reports.add((node, incarnation), lost.lost);
        place.child.as_mut().ok_or("a node without a process cannot serve")?.receive_all(listener);
        place.link.set_target(rpc);
        self.shared.set_endpoint(node, Some(Endpoint { incarnation, url }));
        Ok(())
    }

    fn running(&mut self, node: usize) -> Result<&mut Child, Problem> {
        let place = &mut self.places[node];
        place.child.as_mut().ok_or_else(|| format!("{} has no process", place.name).into())
    }

    /// `kill -9`. No effect if no process runs.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Problem> {
        self.shared.set_endpoint(node, None);
        let place = &mut self.places[node];
        place.asleep = false;
        let Some(child) = place.child.take() else { return Ok(()) };
        self.ends.entry((node, place.incarnation)).or_insert_with(|| self.shared.now());
        child.kill()
    }

    /// `kill -9` of a process whose LiteFS has died; it has received nothing since then.
    pub(super) fn kill_stale(&mut self, node: usize, since: Moment) -> Result<(), Problem> {
        let process = (node, self.places[node].incarnation);
        self.ends.entry(process).or_insert(since);
        self.kill(node)
    }

    /// SIGSTOP.
    pub(super) fn suspend(&mut self, node: usize) -> Result<(), Problem> {
        self.running(node)?.signal(Signal::STOP)?;
        self.places[node].asleep = true;
        Ok(())
    }

    /// SIGCONT. No effect on a node that is not stopped; returns whether it was.
    pub(super) fn resume(&mut self, node: usize) -> Result<bool, Problem> {
        if !std::mem::take(&mut self.places[node].asleep) {
            return Ok(false);
        }
        self.running(node)?.signal(Signal::CONT)?;
        Ok(true)
    }

    /// The exit status of a process that ended without being killed.
    pub(super) fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        self.places[node].child.as_mut()?.ended()
    }

    /// Whether a process runs there and is not stopped.
    pub(super) fn is_reachable(&self, node: usize) -> bool {
        let place = &self.places[node];
        place.child.is_some() && !place.asleep
    }

    /// The link to a node's server.
    pub(super) fn link(&self, node: usize) -> &Relay {
        &self.places[node].link
    }

    /// The losses that the processes of all nodes reported.
    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Which processes were killed, and when.
    pub(super) fn ends(&self) -> &HashMap<Process, Moment> {
        &self.ends
    }
}
