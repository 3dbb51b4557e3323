//! Who answers for acknowledged writes that are gone.

use super::history::{Moment, Outcome, Record};

/// Reports of loss: LiteFS replicates asynchronously, so a failover may lose what was acknowledged, but never silently.
pub(super) trait LossReports {
    /// Whether the loss of this acknowledged append was reported.
    fn covers(&self, append: &Record) -> bool;
}

/// Acknowledged writes that one failover can have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inflicted {
    /// When the failover began: of what was under way then, it is unknown on which side of `kept` it stands.
    pub(super) began: Moment,
    /// From then on nobody could take writes in the old history any more.
    pub(super) until: Moment,
    /// The last transaction of the old history that the new primary has.
    pub(super) kept: u64,
    /// The node to which the loss is confined; `None` for all.
    pub(super) node: Option<usize>,
}

/// The losses that this program itself inflicted.
///
/// This stands for the library's own reports (`LiteFsBuilder::on_lost_writes`, which does not exist yet): once nodes
/// pass on what they hear there, an implementation of [`LossReports`] over that takes this one's place, and what this
/// one knows becomes the test that each report is due.
#[derive(Debug, Clone, Default)]
pub(super) struct InflictedLosses(pub(super) Vec<Inflicted>);

impl LossReports for InflictedLosses {
    fn covers(&self, append: &Record) -> bool {
        let Outcome::Done { txid, .. } = append.outcome else { return false };
        self.0.iter().any(|loss| {
            let there = loss.node.is_none_or(|node| node == append.node);
            there && append.invoked <= loss.until && (txid > loss.kept || append.completed >= loss.began)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::history::Op;

    fn append(invoked: Moment, completed: Moment, txid: u64) -> Record {
        let (op, outcome) = (Op::Append { key: 1, value: 1 }, Outcome::Done { seen: Vec::new(), txid });
        Record { client: 0, node: 1, incarnation: 1, invoked, completed, op, outcome }
    }

    #[test]
    fn a_loss_covers_the_tail_and_nothing_before_or_after_it() {
        let loss = Inflicted { began: 50, until: 60, kept: 100, node: None };
        let losses = InflictedLosses(vec![loss]);
        assert!(losses.covers(&append(10, 20, 101)));
        assert!(losses.covers(&append(45, 55, 90)));
        assert!(!losses.covers(&append(10, 20, 100)), "the new primary had it");
        assert!(!losses.covers(&append(61, 70, 101)), "the new primary took it");
        let elsewhere = InflictedLosses(vec![Inflicted { node: Some(2), ..loss }]);
        assert!(!elsewhere.covers(&append(10, 20, 101)));
    }
}
