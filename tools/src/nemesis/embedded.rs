//! Faults of the embedded cluster.

mod roles;
mod succession;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use litefs_examples::Problem;
use litefs_testkit::{Cluster, EventStreamFault, Flow, Traffic};
use tokio::runtime::Handle;

use self::succession::Succession;
use super::attack::Attack;
use super::client::ClientContext;
use super::fleet::{Fleet, NAMES};
use super::history::{Row, Takeover};
use super::losses::Losses;
use super::rest::{REST_LIMIT, read_all};
use super::schedule::{Fault, Target};
use super::weakness::Weakness;

/// Three nodes in processes of this program.
pub(super) struct Embedded {
    fleet: Fleet,
    shared: Arc<ClientContext>,
    runtime: Handle,
    succession: Succession,
    /// The nodes of the faults that have not ended yet.
    met: BTreeMap<usize, usize>,
}

impl Embedded {
    /// Starts the nodes. Blocks until all applications answer.
    pub(super) fn start(
        shared: Arc<ClientContext>,
        runtime: Handle,
        weaken: Option<Weakness>,
    ) -> Result<Self, Problem> {
        let mut fleet = Fleet::new(Arc::clone(&shared), weaken)?;
        (0..NAMES.len()).try_for_each(|node| fleet.start(node))?;
        let primary = fleet.control(0)?;
        primary.become_primary()?;
        (1..NAMES.len())
            .try_for_each(|node| fleet.control(node)?.follow(primary).map_err(Problem::from))?;
        (0..NAMES.len()).try_for_each(|node| fleet.wait_until_serving(node))?;
        Ok(Self { fleet, shared, runtime, succession: Succession::default(), met: BTreeMap::new() })
    }

    fn node(&self, target: Target) -> usize {
        let primary = self.succession.primary;
        match target {
            Target::Primary => primary,
            Target::Replica(which) => (primary + 1 + which) % NAMES.len(),
        }
    }

    fn inject(&mut self, fault: Fault) -> Result<usize, Problem> {
        let node = self.node(fault.target());
        let primary = self.succession.primary;
        let successor = |which| self.node(Target::Replica(which));
        match fault {
            Fault::Kill { successor: Some(which), .. } => {
                let successor = successor(which);
                self.fleet.kill(node)?;
                self.promote_here(successor, None)?;
            }
            Fault::Kill { successor: None, .. } => self.fleet.kill(node)?,
            Fault::Pause { successor: Some(which), .. } => {
                let successor = successor(which);
                self.fleet.suspend(node)?;
                self.promote_here(successor, Some(node))?;
            }
            Fault::Pause { successor: None, .. } => self.fleet.suspend(node)?,
            Fault::Promote { .. } => self.promote(node)?,
            Fault::LoseTail { lost, .. } => self.lose_tail(node, lost)?,
            Fault::LoseRole { .. } => self.remove_primary()?,
            Fault::HandOff => return Err("a handoff needs a real LiteFS".into()),
            _ if !self.fleet.is_alive(node) => {
                return Err(format!("{} is down", NAMES[node]).into());
            }
            Fault::DropCommit => self.fleet.control(node)?.drop_next_commit()?,
            Fault::Stall { .. } => self.fleet.control(node)?.stall_replication()?,
            Fault::Delay { by, .. } => self.fleet.control(node)?.set_replication_delay(by)?,
            Fault::Cut { .. } => {
                self.fleet.control(node)?.cut_link(NAMES[primary])?;
                if self.fleet.is_alive(primary) {
                    self.fleet.control(primary)?.cut_link(NAMES[node])?;
                }
            }
            Fault::SlowDisk { by } => self.fleet.control(node)?.set_commit_delay(by)?,
            Fault::CutRequests => self.fleet.link(node).set(Traffic::Hold, Traffic::Pass),
            Fault::CutReplies => self.fleet.link(node).set(Traffic::Pass, Traffic::Hold),
            Fault::SlowLink { by } => {
                let slow = Flow { delay: by, ..Flow::default() };
                self.fleet.link(node).set(slow, slow);
            }
            Fault::BreakLink => self.fleet.link(node).cut(),
            Fault::SilentEvents { .. } => {
                self.fleet.control(node)?.set_event_stream_fault(EventStreamFault::Silent)?;
            }
        }
        Ok(node)
    }

    fn end_fault(&mut self, node: usize, fault: Fault) -> Result<(), Problem> {
        match fault {
            Fault::Kill { .. } | Fault::DropCommit => self.come_back(node),
            Fault::Pause { successor, late, .. } => {
                self.fleet.resume(node)?;
                if successor.is_some() {
                    // The node still acts as the primary, and executes its clients' writes.
                    thread::sleep(late);
                    self.submit(node)?;
                }
                Ok(())
            }
            Fault::LoseRole { successor } => {
                let successor = self.node(successor);
                self.restore(successor)
            }
            Fault::Promote { .. } | Fault::LoseTail { .. } => self.restart_dead(),
            Fault::CutReplies => {
                self.fleet.link(node).cut();
                self.fleet.clear_faults(node)
            }
            _ => (0..NAMES.len()).try_for_each(|node| self.fleet.clear_faults(node)),
        }
    }

    /// Restores a primary, whatever a fault has left behind. LiteFS may die of a commit that was
    /// under way, so this is tried twice.
    fn recover(&mut self) -> Result<(), Problem> {
        self.repair().or_else(|_| self.repair())
    }

    fn repair(&mut self) -> Result<(), Problem> {
        (0..NAMES.len()).try_for_each(|node| self.fleet.resume(node))?;
        (0..NAMES.len()).try_for_each(|node| self.fleet.clear_faults(node))?;
        let serves =
            |node: &usize| self.fleet.is_alive(*node) && self.shared.endpoint(*node).is_some();
        let away: Vec<_> = (0..NAMES.len()).filter(|node| !serves(node)).collect();
        for node in &away {
            self.fleet.kill(*node)?;
            self.fleet.start(*node)?;
        }
        let leads = self.fleet.control(self.succession.primary)?.is_primary();
        let leader = if leads { self.succession.primary } else { self.fleet.furthest()? };
        self.restore(leader)?;
        away.into_iter().try_for_each(|node| self.fleet.wait_until_serving(node))
    }

    fn told(&self, result: &Result<usize, Problem>, fault: Fault) -> String {
        let primary = NAMES[self.succession.primary];
        match result {
            Ok(node) => format!("{fault:?} hit {}; {primary} is the primary", NAMES[*node]),
            Err(problem) => {
                format!("{fault:?} failed: {problem}; {primary} is the primary")
            }
        }
    }
}

impl Attack for Embedded {
    fn begin(&mut self, id: usize, fault: Fault) -> Result<String, Problem> {
        let injected = self.inject(fault);
        match &injected {
            Ok(node) => drop(self.met.insert(id, *node)),
            Err(_) if fault.concerns_roles() => self.recover()?,
            Err(_) => {}
        }
        Ok(self.told(&injected, fault))
    }

    fn end(&mut self, id: usize, fault: Fault) -> Result<String, Problem> {
        let Some(node) = self.met.remove(&id) else { return Ok(String::new()) };
        let ended = self.end_fault(node, fault).map(|()| node);
        if ended.is_err() {
            self.recover()?;
        }
        Ok(format!("end of {}", self.told(&ended, fault)))
    }

    fn heal(&mut self) -> Result<(), Problem> {
        self.met.clear();
        self.recover()
    }

    fn finals(&self) -> Result<Vec<(String, Vec<Row>)>, Problem> {
        let controls =
            (0..NAMES.len()).map(|node| self.fleet.control(node).map(|control| control.http_url()));
        Cluster::attach(controls.collect::<Result<Vec<_>, _>>()?)?.wait_for_sync(REST_LIMIT)?;
        let txids = || (0..NAMES.len()).map(|node| self.fleet.txid(node)).collect();
        read_all(&NAMES.map(str::to_owned), &self.shared, &self.runtime, txids)
    }

    fn takeovers(&self) -> Vec<Takeover> {
        self.succession.takeovers.clone()
    }

    fn losses(&self) -> Losses {
        Losses {
            reports: self.fleet.processes().reports().clone(),
            possible_losses: self.succession.possible_losses.clone(),
            ends: self.fleet.processes().ends().clone(),
        }
    }
}
