//! The primaries of a run, and what each change of the primary may have lost.

use crate::nemesis::history::{Moment, Takeover};
use crate::nemesis::losses::PossibleLoss;

/// The primary and its predecessors.
#[derive(Debug, Default)]
pub(super) struct Succession {
    pub(super) primary: usize,
    pub(super) takeovers: Vec<Takeover>,
    pub(super) possible_losses: Vec<PossibleLoss>,
}

impl Succession {
    pub(super) fn passed_to(&mut self, successor: usize, began: Moment, ended: Moment) {
        self.takeovers.push(Takeover { began, ended });
        self.primary = successor;
    }

    pub(super) fn lost(&mut self, began: Moment, until: Moment, kept: u64, node: Option<usize>) {
        self.possible_losses.push(PossibleLoss { began, until, kept, node });
    }

    /// All primaries that were stopped during a failover have been demoted.
    pub(super) fn all_awake(&mut self, now: Moment) {
        self.possible_losses.iter_mut().for_each(|loss| loss.until = loss.until.min(now));
    }
}
