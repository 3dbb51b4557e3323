//! Acknowledged writes that a failover has lost, told to somebody.
//!
//! LiteFS replicates after the commit: what a primary acknowledged and had not shipped when it died is gone. That cannot be
//! prevented here ([`Durability`](crate::Durability) pays to prevent it), but it is not hidden: each process remembers what
//! it was told is done, and looks whether the next primary has it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position};
use litefs_rpc::wire::RequestId;
use tokio::sync::Notify;

use crate::reigns::Reign;

/// How many acknowledgements are remembered, at most.
const REMEMBERED: usize = 8_192;

/// Acknowledged writes that are not in the new primary's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrites {
    /// Who is the primary now.
    pub primary: String,
    /// What was lost, oldest first.
    pub writes: Vec<LostWrite>,
}

/// One acknowledged write that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrite {
    /// Who acknowledged it.
    pub acknowledged_by: String,
    /// The position that was acknowledged; other writes may have shared it.
    pub position: Position,
    /// The write's own name; `None` for one that ran on the primary itself, or was delivered at most once.
    pub request: Option<RequestId>,
}

/// What a write was acknowledged with: by this it is recognised among [`LostWrites`], should it be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// As in [`LostWrite::position`].
    pub position: Position,
    /// As in [`LostWrite::request`].
    pub request: Option<RequestId>,
}

/// Hears of losses.
pub(crate) type OnLostWrites = Arc<dyn Fn(&LostWrites) + Send + Sync>;

#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    /// `None`: this node itself. LiteFS may not have told it its name yet.
    pub(crate) primary: Option<NodeName>,
    pub(crate) position: Position,
    pub(crate) request: Option<RequestId>,
    /// Where the reign began in which it was acknowledged, where that is this node's own.
    pub(crate) reign: Option<Position>,
    /// The ledger's when the write was begun: whoever acknowledged it, it was not a primary before that one.
    pub(crate) generation: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: Instant,
    what: Acknowledged,
}

/// What this process was told is done.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Outcomes of older writes may be pruned, and then say nothing.
    memory: Duration,
    /// One more with each primary. What was begun in an earlier one is looked at.
    generation: AtomicU64,
    /// Wakes who looks: something of an earlier generation was acknowledged only now.
    late: Notify,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    entries: VecDeque<Entry>,
}

impl Ledger {
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            memory: retention / 2,
            generation: AtomicU64::new(0),
            late: Notify::new(),
            entries: Mutex::default(),
        }
    }

    /// To be read before a write is begun.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// There is another primary, or the same one again: everything is to be looked at.
    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn note(&self, what: Acknowledged) {
        let late = what.generation != self.generation();
        let mut ledger = self.entries();
        let old = |entry: &Entry| entry.at.elapsed() > self.memory;
        while ledger.entries.len() >= REMEMBERED || ledger.entries.front().is_some_and(old) {
            ledger.entries.pop_front();
        }
        let number = ledger.next;
        ledger.next += 1;
        ledger.entries.push_back(Entry { number, at: Instant::now(), what });
        drop(ledger);
        if late {
            self.late.notify_one();
        }
    }

    /// Returns once something was noted that is to be looked at at once.
    pub(crate) async fn late(&self) {
        self.late.notified().await;
    }

    /// What was begun in a generation before this one, by number, oldest first.
    pub(crate) fn of_former(&self) -> Vec<(u64, Acknowledged)> {
        let generation = self.generation();
        let ledger = self.entries();
        let former = ledger.entries.iter().filter(|entry| entry.what.generation != generation);
        former.map(|entry| (entry.number, entry.what.clone())).collect()
    }

    /// What was looked at in `generation` and is there may still be lost by the next failover; what is lost is told once.
    pub(crate) fn settle(
        &self,
        looked_at: &[(u64, Acknowledged)],
        lost: &[(u64, LostWrite)],
        generation: u64,
    ) {
        let mut ledger = self.entries();
        ledger
            .entries
            .retain(|entry| lost.binary_search_by_key(&entry.number, |(number, _)| *number).is_err());
        for entry in &mut ledger.entries {
            if looked_at.binary_search_by_key(&entry.number, |(number, _)| *number).is_ok() {
                entry.what.generation = generation;
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().expect("no code panics while it holds the ledger")
    }
}

/// Which of `former` are not in a history that had these `reigns`, the last of them the one that lasts. `applied` looks a
/// write up in that history. `own`: the names under which this node's reigns may be recorded, the best first.
pub(crate) fn lost(
    former: &[(u64, Acknowledged)],
    reigns: &[Reign],
    own: &[NodeName],
    mut applied: impl FnMut(RequestId) -> Option<bool>,
) -> Vec<(u64, LostWrite)> {
    let mut is_lost = |write: &Acknowledged| match write.request.and_then(&mut applied) {
        Some(applied) => !applied,
        None => later(write, reigns, own).any(|reign| write.position.txid > reign.began.txid),
    };
    former
        .iter()
        .filter(|(_, write)| is_lost(write))
        .map(|(number, write)| {
            let acknowledged_by =
                write.primary.as_ref().or(own.first()).map_or_else(String::new, NodeName::to_string);
            (*number, LostWrite { acknowledged_by, position: write.position, request: write.request })
        })
        .collect()
}

/// The reigns after the one in which a write without a name was acknowledged. Each of them has of the ones before what lies
/// up to its beginning. Where the write's own reign is unknown, only the last one is certain to come after it, if it is somebody else's.
fn later<'a>(
    write: &'a Acknowledged,
    reigns: &'a [Reign],
    own: &'a [NodeName],
) -> impl Iterator<Item = &'a Reign> {
    let names = write.primary.as_ref().map_or(own, std::slice::from_ref);
    let is_its_node = |reign: &Reign| names.iter().any(|name| name.as_ref() == reign.node);
    let is_its_own = |reign: &Reign| Some(reign.began) == write.reign && is_its_node(reign);
    let known = reigns.iter().rposition(is_its_own);
    let (last, began) = (reigns.len().saturating_sub(1), write.reign);
    reigns.iter().enumerate().filter_map(move |(index, reign)| {
        let comes_later = match (known, began) {
            (Some(known), _) => index > known,
            // Its row is lost, or was never written. Of the reigns before it each has written something, so they began
            // earlier.
            (None, Some(began)) => index == last || reign.began.txid >= began.txid,
            (None, None) => index == last && !is_its_node(reign),
        };
        comes_later.then_some(reign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_core::{Checksum, Txid};

    fn at(txid: u64) -> Position {
        Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
    }

    fn write(primary: &str, txid: u64, request: Option<RequestId>) -> Acknowledged {
        let primary = primary.parse().ok();
        Acknowledged { primary, position: at(txid), request, reign: None, generation: 0 }
    }

    /// On the primary itself, in its reign that began there.
    fn local(primary: &str, began: u64, txid: u64) -> Acknowledged {
        Acknowledged { reign: Some(at(began)), ..write(primary, txid, None) }
    }

    fn reign(node: &str, began: u64) -> Reign {
        Reign { node: node.into(), began: at(began) }
    }

    fn positions(lost: &[(u64, LostWrite)]) -> Vec<Position> {
        lost.iter().map(|(_, write)| write.position).collect()
    }

    #[test]
    fn f7_what_lies_beyond_the_new_reigns_beginning_is_lost_unless_its_outcome_is_there() {
        let ledger = Ledger::new(Duration::from_secs(60));
        let (there, gone, early) = (RequestId::new(), RequestId::new(), RequestId::new());
        for (position, request) in [(5, None), (6, Some(there)), (7, Some(gone)), (8, None), (3, Some(early))]
        {
            ledger.note(write("a", position, request));
        }
        assert!(ledger.of_former().is_empty());
        ledger.next_generation();
        let former = ledger.of_former();
        assert_eq!(former.len(), 5);
        let lost = lost(&former, &[reign("b", 5)], &[], |id| (id != early).then_some(id == there));
        assert_eq!(positions(&lost), [at(7), at(8)]);
        assert_eq!(lost[0].1.request, Some(gone));
        ledger.settle(&former, &lost, 1);
        assert!(ledger.of_former().is_empty(), "told once");
        ledger.next_generation();
        assert_eq!(ledger.of_former().len(), 3, "the next failover may lose the others");
    }

    #[test]
    fn f7_what_a_reign_has_lost_that_nobody_looked_at_is_lost_although_a_later_one_has_come_further() {
        let reigns = [reign("a", 1), reign("b", 5), reign("c", 20)];
        let lost_of = |write: Acknowledged| lost(&[(0, write)], &reigns, &[], |_| None).len();
        assert_eq!(lost_of(local("a", 1, 5)), 0);
        assert_eq!(lost_of(local("a", 1, 6)), 1, "b went on from 5");
        assert_eq!(lost_of(local("b", 5, 20)), 0, "b's own");
        assert_eq!(lost_of(local("b", 5, 21)), 1);
        assert_eq!(lost_of(local("c", 20, 30)), 0, "c's own");
        assert_eq!(lost_of(local("b", 3, 6)), 1, "a reign of b that is not in this history");
        assert_eq!(lost_of(local("d", 18, 20)), 0, "its row never came, but c has what it wrote");
        assert_eq!(lost_of(local("d", 18, 21)), 1);
    }

    /// A node that has just become the primary for the first time hears its name from LiteFS a moment later.
    #[test]
    fn f7_a_primarys_own_write_is_found_by_each_of_its_names() {
        let own: Vec<NodeName> = ["b", "machine"].map(|name| name.parse().unwrap()).into();
        let mine = |began, txid| Acknowledged { primary: None, ..local("b", began, txid) };
        let lost_of = |write: Acknowledged, reigns: &[Reign]| lost(&[(0, write)], reigns, &own, |_| None);
        for name in ["b", "machine"] {
            let reigns = [reign("a", 1), reign(name, 5)];
            assert_eq!(lost_of(mine(5, 6), &reigns), [], "{name}");
            assert_eq!(lost_of(Acknowledged { reign: None, ..mine(5, 6) }, &reigns), [], "{name}");
            let next = [reigns.as_slice(), &[reign("a", 7)]].concat();
            assert_eq!(lost_of(mine(5, 7), &next), [], "{name}");
            let gone = lost_of(mine(5, 8), &next);
            assert_eq!((gone.len(), gone[0].1.acknowledged_by.as_str()), (1, "b"));
        }
        assert_eq!(lost_of(mine(5, 6), &[reign("a", 1), reign("c", 5)]).len(), 1, "another node's reign");
    }

    #[test]
    fn a_write_that_was_acknowledged_when_the_primary_had_changed_is_looked_at_by_itself() {
        let ledger = Ledger::new(Duration::from_secs(60));
        ledger.next_generation();
        let late = write("b", 9, None);
        assert_eq!(futures::FutureExt::now_or_never(ledger.late()), None);
        ledger.note(Acknowledged { generation: 1, ..late.clone() });
        assert_eq!(futures::FutureExt::now_or_never(ledger.late()), None);
        ledger.note(late);
        assert_eq!(futures::FutureExt::now_or_never(ledger.late()), Some(()));
        assert_eq!(ledger.of_former().len(), 1);
    }

    #[test]
    fn the_ledger_is_bounded() {
        let ledger = Ledger::new(Duration::from_secs(60));
        for txid in 0..REMEMBERED as u64 + 10 {
            ledger.note(write("a", txid, None));
        }
        ledger.next_generation();
        let former = ledger.of_former();
        assert_eq!((former.len(), former[0].1.position), (REMEMBERED, at(10)));
    }
}
