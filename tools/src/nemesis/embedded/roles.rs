//! Changes of the primary.

use std::time::Duration;

use litefs_examples::Problem;
use litefs_testkit::Cluster;

use super::Embedded;
use crate::nemesis::fleet::{NAMES, txid};
use crate::nemesis::history::Moment;

/// How long a successor may take to receive everything.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(5);

impl Embedded {
    /// An orderly failover: the old primary stops writing, and the successor receives everything.
    pub(super) fn promote(&mut self, successor: usize) -> Result<(), Problem> {
        (0..NAMES.len()).try_for_each(|node| self.fleet.clear_faults(node))?;
        let began = self.shared.now();
        let old = self.fleet.control(self.succession.primary)?;
        old.drain()?;
        let last = txid(&old.status()?);
        if let Err(error) = self
            .fleet
            .control(successor)?
            .wait_until(SUCCESSOR_LIMIT, |status| txid(status) == last)
        {
            old.become_primary()?;
            return Err(error.into());
        }
        self.make_primary(successor)?;
        self.succession.passed_to(successor, began, self.shared.now());
        Ok(())
    }

    /// A failover to a replica with the data that it has, after the old primary was killed or
    /// frozen.
    pub(super) fn promote_here(
        &mut self,
        successor: usize,
        asleep: Option<usize>,
    ) -> Result<(), Problem> {
        let began = self.shared.now();
        let kept = self.fleet.txid(successor)?;
        self.make_primary(successor)?;
        let ended = self.shared.now();
        self.succession.lost(began, ended, kept, None);
        if asleep.is_some() {
            // Writes of its own clients until it learns of the failover are lost as well.
            self.succession.lost(began, Moment::MAX, kept, asleep);
        }
        self.succession.passed_to(successor, began, ended);
        Ok(())
    }

    /// A failover that loses transactions although the old primary is alive.
    pub(super) fn lose_tail(&mut self, successor: usize, lost: u64) -> Result<(), Problem> {
        (0..NAMES.len()).try_for_each(|node| self.fleet.clear_faults(node))?;
        let (old, began) = (self.succession.primary, self.shared.now());
        // The primary keeps writing for a moment, so this is a lower bound on what is kept.
        let kept = self.fleet.txid(old)?.saturating_sub(lost);
        // The third node follows below, without a wait.
        let pair = Cluster::attach([
            self.fleet.control(old)?.http_url(),
            self.fleet.control(successor)?.http_url(),
        ])?;
        let done = pair.promote_losing_tail(NAMES[successor], lost);
        if self.fleet.control(successor)?.is_primary() {
            self.lead(successor)?;
            self.succession.lost(began, self.shared.now(), kept, None);
            self.succession.passed_to(successor, began, self.shared.now());
        }
        Ok(done?)
    }

    /// Leaves the cluster without a primary.
    pub(super) fn remove_primary(&mut self) -> Result<(), Problem> {
        let reachable = self.fleet.reachable();
        reachable
            .into_iter()
            .try_for_each(|node| self.fleet.control(node)?.lose_primary().map_err(Problem::from))
    }

    /// Makes `successor` the primary if no node is, or leaves the present primary. Restarts nodes
    /// whose LiteFS has died.
    pub(super) fn restore(&mut self, successor: usize) -> Result<(), Problem> {
        let began = self.shared.now();
        let dead = self.fleet.dead();
        for node in &dead {
            self.fleet.kill(*node)?;
            self.fleet.start(*node)?;
        }
        let (kept, most) = (self.fleet.txid(successor)?, self.fleet.txid(self.fleet.furthest()?)?);
        if self.fleet.control(successor)?.is_primary() {
            self.lead(successor)?
        } else {
            self.make_primary(successor)?
        }
        self.succession.all_awake(self.shared.now());
        if kept < most {
            self.succession.lost(began, self.shared.now(), kept, None);
        }
        if successor != self.succession.primary {
            self.succession.passed_to(successor, began, self.shared.now());
        }
        dead.into_iter().try_for_each(|node| self.fleet.wait_until_serving(node))
    }

    /// Returns a killed node to its old role, unless another node has taken its place.
    pub(super) fn come_back(&mut self, node: usize) -> Result<(), Problem> {
        self.fleet.kill(node)?;
        self.fleet.start(node)?;
        let primary = self.succession.primary;
        if node == primary {
            self.make_primary(node)?;
        } else {
            self.fleet.control(node)?.follow(self.fleet.control(primary)?)?;
        }
        self.fleet.wait_until_serving(node)
    }

    /// Demotes a primary that was stopped during a failover.
    pub(super) fn submit(&mut self, node: usize) -> Result<(), Problem> {
        let follows =
            self.fleet.control(node)?.follow(self.fleet.control(self.succession.primary)?);
        self.succession.all_awake(self.shared.now());
        follows?;
        // A commit under way is dropped, and its LiteFS dies.
        self.restart_dead()
    }

    /// Restarts nodes whose LiteFS has died, as it does when it cannot capture a commit.
    pub(super) fn restart_dead(&mut self) -> Result<(), Problem> {
        self.fleet.dead().into_iter().try_for_each(|node| self.come_back(node))
    }

    fn make_primary(&self, successor: usize) -> Result<(), Problem> {
        self.fleet.control(successor)?.become_primary()?;
        self.lead(successor)
    }

    /// Makes all other living nodes follow.
    fn lead(&self, leader: usize) -> Result<(), Problem> {
        let control = self.fleet.control(leader)?;
        let mut others = self.fleet.alive().into_iter().filter(|node| *node != leader);
        others
            .try_for_each(|other| self.fleet.control(other)?.follow(control).map_err(Problem::from))
    }
}
