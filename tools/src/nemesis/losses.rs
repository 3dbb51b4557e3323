//! Which processes must report which lost writes.
//!
//! LiteFS replicates asynchronously, so a failover may lose acknowledged writes, but never
//! silently: the process that acknowledged a write reports its loss
//! (`LiteFsBuilder::on_lost_writes`). Only that process knows what it has acknowledged. So an
//! unreported loss is excused in one case: the process was killed before its report was due, and
//! this program has injected a failover that can have lost the write.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::history::{Moment, Process, Receipt, Record};

/// A process that lives this long after a failover must have reported the loss. It has to learn of
/// the new primary, receive a copy of its database and reach it, all under further faults.
pub(super) const REPORT_LIMIT: Duration = Duration::from_secs(5);

/// The source of reports of losses.
pub(super) trait LossReports {
    /// Whether this append was reported as lost.
    fn report(&self, append: &Record) -> bool;

    /// Whether the unreported loss of this append cannot be reported any more.
    fn excuse(&self, append: &Record) -> bool;
}

/// The reports of the processes of all nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Arc<Mutex<HashSet<(Process, Receipt)>>>);

impl Reports {
    /// Adds a report of one process.
    pub(super) fn add(&self, process: Process, lost: impl IntoIterator<Item = Receipt>) {
        let mut reports = self.0.lock().expect("no code panics while it holds the reports");
        reports.extend(lost.into_iter().map(|receipt| (process, receipt)));
    }

    fn name(&self, append: &Record) -> bool {
        let reports = self.0.lock().expect("no code panics while it holds the reports");
        append
            .receipt()
            .is_some_and(|receipt| reports.contains(&(append.process(), receipt.clone())))
    }
}

/// The acknowledged writes that one failover can have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PossibleLoss {
    /// When the failover began. Writes under way then may be on either side of `kept`.
    pub(super) began: Moment,
    /// When the last node could accept writes in the old history.
    pub(super) until: Moment,
    /// The last transaction of the old history that the new primary has.
    pub(super) kept: u64,
    /// The node whose writes can be lost; `None` for all.
    pub(super) node: Option<usize>,
}

impl PossibleLoss {
    fn can_have_lost(&self, append: &Record) -> bool {
        let Some(receipt) = append.receipt() else { return false };
        let there = self.node.is_none_or(|node| node == append.node);
        let late = receipt.txid > self.kept || append.completed >= self.began;
        there && append.invoked <= self.until && late
    }
}

/// The reports, and the losses that cannot be reported any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    pub(super) reports: Reports,
    pub(super) possible_losses: Vec<PossibleLoss>,
    /// When processes were killed.
    pub(super) ends: HashMap<Process, Moment>,
}

impl LossReports for Losses {
    fn report(&self, append: &Record) -> bool {
        self.reports.name(append)
    }

    fn excuse(&self, append: &Record) -> bool {
        let limit = Moment::try_from(REPORT_LIMIT.as_micros()).unwrap_or(Moment::MAX);
        let Some(end) = self.ends.get(&append.process()) else { return false };
        self.possible_losses
            .iter()
            .any(|loss| loss.can_have_lost(append) && *end <= loss.until.saturating_add(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::history::{Op, Outcome};

    const LOSS: PossibleLoss = PossibleLoss { began: 50, until: 60, kept: 100, node: None };

    fn receipt(txid: u64) -> Receipt {
        Receipt { txid, position: format!("{txid}/0"), request: None }
    }

    fn append(invoked: Moment, completed: Moment, txid: u64) -> Record {
        let outcome = Outcome::Done { seen: Vec::new(), receipt: Some(receipt(txid)) };
        let op = Op::Append { key: 1, value: 1 };
        Record { client: 0, node: 1, incarnation: 1, invoked, completed, op, outcome }
    }

    fn killed_at(end: Moment, loss: PossibleLoss) -> Losses {
        Losses {
            possible_losses: vec![loss],
            ends: HashMap::from([((1, 1), end)]),
            ..Losses::default()
        }
    }

    #[test]
    fn a_report_is_of_one_write_of_one_process() {
        let losses = Losses::default();
        losses.reports.add((1, 1), [receipt(101)]);
        assert!(losses.report(&append(10, 20, 101)));
        assert!(!losses.report(&append(10, 20, 102)), "another write");
        let other = Record { incarnation: 2, ..append(10, 20, 101) };
        assert!(!losses.report(&other), "another process");
    }

    #[test]
    fn a_killed_process_is_excused_for_a_failovers_tail_only() {
        let losses = killed_at(70, LOSS);
        assert!(losses.excuse(&append(10, 20, 101)));
        assert!(losses.excuse(&append(45, 55, 90)));
        assert!(!losses.excuse(&append(10, 20, 100)), "the new primary had it");
        assert!(!losses.excuse(&append(61, 70, 101)), "the new primary acknowledged it");
        let elsewhere = killed_at(70, PossibleLoss { node: Some(2), ..LOSS });
        assert!(!elsewhere.excuse(&append(10, 20, 101)));
    }

    #[test]
    fn a_process_that_lived_long_enough_is_not_excused() {
        let lives = Losses { possible_losses: vec![LOSS], ..Losses::default() };
        assert!(!lives.excuse(&append(10, 20, 101)));
        assert!(killed_at(5_000_060, LOSS).excuse(&append(10, 20, 101)));
        assert!(!killed_at(5_000_061, LOSS).excuse(&append(10, 20, 101)));
    }
}
