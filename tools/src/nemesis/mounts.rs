//! Faults of real LiteFS: one process of this program for each mount that exists already.
//!
//! LiteFS itself gets no faults: they affect this program's processes and the links between them,
//! and changes of the primary that LiteFS is asked for.

pub(super) mod mount;
mod watch;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use litefs_examples::Problem;
use litefs_testkit::{Flow, Traffic};
use rustix::process::Signal;
use tokio::runtime::Handle;

use self::mount::{Mount, position};
use self::watch::Watch;
use super::attack::Attack;
use super::client::ClientContext;
use super::history::{Row, Takeover};
use super::losses::Losses;
use super::processes::Processes;
use super::rest::read_all;
use super::schedule::{Fault, Target};
use super::weakness::Weakness;

/// How long LiteFS may take to elect a primary, or to be restarted.
const LITEFS_LIMIT: Duration = Duration::from_secs(20);
/// The interval of polling for a primary.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The nodes on their mounts.
pub(super) struct Mounts {
    mounts: Vec<Mount>,
    names: Vec<String>,
    /// A name that is unique to this run, so that the database is new.
    database: String,
    processes: Processes,
    watch: Watch,
    shared: Arc<ClientContext>,
    runtime: Handle,
    met: BTreeMap<usize, usize>,
}

impl Mounts {
    /// Starts the nodes' processes. Blocks until all applications answer.
    pub(super) fn start(
        mounts: &[Mount],
        shared: Arc<ClientContext>,
        runtime: Handle,
        weaken: Option<Weakness>,
    ) -> Result<Self, Problem> {
        let names: Vec<_> = (0..mounts.len()).map(|node| format!("mount-{node}")).collect();
        let database = format!("nemesis-{:08x}.db", rand::random::<u32>());
        let processes = Processes::new(&names, Arc::clone(&shared), weaken)?;
        let watch = Watch::start(mounts.to_vec(), database.clone(), Arc::clone(&shared), &runtime);
        let mounts = mounts.to_vec();
        let mut all = Self {
            mounts,
            names,
            database,
            processes,
            watch,
            shared,
            runtime,
            met: BTreeMap::new(),
        };
        let primary = all.await_primary()?;
        // The primary creates the database that the other nodes wait for.
        all.begin_node(primary)?;
        (0..all.mounts.len())
            .filter(|node| *node != primary)
            .try_for_each(|node| all.begin_node(node))?;
        Ok(all)
    }

    fn begin_node(&mut self, node: usize) -> Result<(), Problem> {
        let mount = &self.mounts[node];
        let (database, url) = (mount.file(&self.database), mount.url.clone());
        self.processes.start(node, &["--database", &database, "--litefs", &url])?;
        self.processes
            .wait_until_serving(node)
            .or_else(|problem| self.processes.kill(node).and(Err(problem)))
    }

    fn await_primary(&self) -> Result<usize, Problem> {
        let missing = "LiteFS reports no mount as the primary";
        self.await_state(missing, |all| all.watch.primary().is_some())?;
        self.watch.primary().ok_or_else(|| missing.into())
    }

    fn await_state(&self, otherwise: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Problem> {
        let deadline = Instant::now() + LITEFS_LIMIT;
        while !holds(self) {
            if Instant::now() >= deadline {
                return Err(otherwise.into());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// LiteFS ends when it loses the lease in the middle of a commit. Its supervisor restarts it;
    /// the files that our process has open belong to the previous mount.
    fn restart_dead(&mut self) -> Result<(), Problem> {
        while let Some((node, since)) = self.watch.take_back() {
            self.processes.kill_stale(node, since)?;
            self.begin_node(node)?;
        }
        (0..self.mounts.len()).try_for_each(|node| self.replace(node))
    }

    /// SQLite maps the WAL's index from a file of LiteFS. An access while LiteFS dies or changes
    /// its role may kill the process. Any other end of a process is a violation.
    fn replace(&mut self, node: usize) -> Result<(), Problem> {
        match self.processes.ended(node) {
            None => Ok(()),
            Some(status) if status.signal() == Some(Signal::BUS.as_raw()) => {
                self.processes.kill(node)?;
                self.begin_node(node)
            }
            Some(status) => {
                Err(format!("{} has ended by itself: {status}", self.names[node]).into())
            }
        }
    }

    fn node(&self, target: Target, primary: usize) -> usize {
        let others = self.mounts.len() - 1;
        match target {
            Target::Primary => primary,
            Target::Replica(which) => (primary + 1 + which % others) % self.mounts.len(),
        }
    }

    fn inject(&mut self, fault: Fault) -> Result<usize, Problem> {
        let primary = self.watch.primary().ok_or("there is no primary")?;
        let node = self.node(fault.target(), primary);
        match fault {
            Fault::Kill { .. } => self.processes.kill(node)?,
            Fault::Pause { .. } => self.processes.suspend(node)?,
            Fault::Promote { .. } => self.post(&format!("{}/promote", self.mounts[node].url))?,
            Fault::HandOff => {
                let endpoint = self.shared.endpoint(node).ok_or("its process is down")?;
                self.post(&format!("{}/handoff", endpoint.url))?;
            }
            Fault::CutRequests => self.processes.link(node).set(Traffic::Hold, Traffic::Pass),
            Fault::CutReplies => self.processes.link(node).set(Traffic::Pass, Traffic::Hold),
            Fault::SlowLink { by } => {
                let slow = Flow { delay: by, ..Flow::default() };
                self.processes.link(node).set(slow, slow);
            }
            Fault::BreakLink => self.processes.link(node).cut(),
            _ => return Err("this fault needs control over LiteFS".into()),
        }
        Ok(node)
    }

    fn post(&self, url: &str) -> Result<(), Problem> {
        self.runtime.block_on(async {
            let answer = self.shared.http.post(url).send().await?;
            if answer.status().is_success() {
                return Ok(());
            }
            Err(format!("{}: {}", answer.status(), answer.text().await?.trim()).into())
        })
    }

    fn end_fault(&mut self, node: usize, fault: Fault) -> Result<(), Problem> {
        match fault {
            // Skipped if it has been restarted together with its LiteFS.
            Fault::Kill { .. } if self.shared.endpoint(node).is_some() => Ok(()),
            Fault::Kill { .. } => self.begin_node(node),
            Fault::Pause { .. } => self.processes.resume(node).map(drop),
            Fault::CutReplies => {
                self.processes.link(node).cut();
                self.pass(node);
                Ok(())
            }
            _ => {
                self.pass(node);
                Ok(())
            }
        }
    }

    fn pass(&self, node: usize) {
        self.processes.link(node).set(Traffic::Pass, Traffic::Pass);
    }

    fn told(&self, result: &Result<usize, Problem>, fault: Fault) -> String {
        let primary = self.watch.primary().map_or("no node", |primary| &self.names[primary]);
        match result {
            Ok(node) => format!("{fault:?} hit {}; {primary} is the primary", self.names[*node]),
            Err(problem) => {
                format!("{fault:?} failed: {problem}; {primary} is the primary")
            }
        }
    }

    /// The full positions that LiteFS reports: the same number may belong to another history.
    fn positions(&self) -> Result<Vec<String>, Problem> {
        let read = |mount: &Mount| position(&mount.dir, &self.database).map_err(Problem::from);
        self.mounts.iter().map(read).collect()
    }
}

impl Attack for Mounts {
    fn begin(&mut self, id: usize, fault: Fault) -> Result<String, Problem> {
        let injected = self.inject(fault);
        if let Ok(node) = injected {
            self.met.insert(id, node);
        }
        Ok(self.told(&injected, fault))
    }

    fn end(&mut self, id: usize, fault: Fault) -> Result<String, Problem> {
        let Some(node) = self.met.remove(&id) else { return Ok(String::new()) };
        // A process whose LiteFS is down too is restarted with it.
        let ended = self.end_fault(node, fault).and_then(|()| self.restart_dead()).map(|()| node);
        Ok(format!("end of {}", self.told(&ended, fault)))
    }

    fn heal(&mut self) -> Result<(), Problem> {
        self.met.clear();
        for node in 0..self.mounts.len() {
            self.pass(node);
            self.processes.resume(node)?;
        }
        self.await_state("a LiteFS was not restarted", |all| all.watch.all_answer())?;
        self.await_primary()?;
        self.restart_dead()?;
        let away = |node: &usize| self.shared.endpoint(*node).is_none();
        let away: Vec<_> = (0..self.mounts.len()).filter(away).collect();
        away.into_iter().try_for_each(|node| self.begin_node(node))
    }

    fn finals(&self) -> Result<Vec<(String, Vec<Row>)>, Problem> {
        read_all(&self.names, &self.shared, &self.runtime, || self.positions())
    }

    fn takeovers(&self) -> Vec<Takeover> {
        self.watch.takeovers()
    }

    fn losses(&self) -> Losses {
        Losses {
            reports: self.processes.reports().clone(),
            possible_losses: self.watch.possible_losses(),
            ends: self.processes.ends().clone(),
        }
    }
}
