//! Acknowledged writes that a failover has lost, told to somebody.
//!
//! LiteFS replicates after the commit: what a primary acknowledged and had not shipped when it died is gone. That cannot be
//! prevented here ([`Durability`](crate::Durability) pays to prevent it), but it is not hidden: each process remembers what
//! it was told is done, and looks whether the next primary has it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position};
use litefs_rpc::wire::RequestId;

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
    primary: NodeName,
    position: Position,
    request: Option<RequestId>,
    at: Instant,
}

/// What this process was told is done.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Outcomes of older writes may be pruned, and then say nothing.
    memory: Duration,
    entries: Mutex<VecDeque<Acknowledged>>,
}

impl Ledger {
    pub(crate) fn new(retention: Duration) -> Self {
        Self { memory: retention / 2, entries: Mutex::default() }
    }

    pub(crate) fn note(&self, primary: NodeName, position: Position, request: Option<RequestId>) {
        let mut entries = self.entries();
        while entries.len() >= REMEMBERED
            || entries.front().is_some_and(|entry| entry.at.elapsed() > self.memory)
        {
            entries.pop_front();
        }
        entries.push_back(Acknowledged { primary, position, request, at: Instant::now() });
    }

    /// Takes out what others than `primary` have acknowledged: it is looked at once.
    pub(crate) fn of_former(&self, primary: &NodeName) -> Vec<Acknowledged> {
        let mut entries = self.entries();
        let (former, own): (VecDeque<_>, VecDeque<_>) =
            entries.drain(..).partition(|entry| entry.primary != *primary);
        *entries = own;
        former.into()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, VecDeque<Acknowledged>> {
        self.entries.lock().expect("no code panics while it holds the ledger")
    }
}

/// Which of `former` are not in the history of a primary whose reign began at `began`. `applied` looks a write up in that
/// history.
pub(crate) fn lost(
    former: Vec<Acknowledged>,
    began: Position,
    mut applied: impl FnMut(RequestId) -> Option<bool>,
) -> Vec<LostWrite> {
    let is_lost = |entry: &Acknowledged| match entry.request.and_then(&mut applied) {
        Some(applied) => !applied,
        None => entry.position.txid > began.txid,
    };
    former
        .into_iter()
        .filter(is_lost)
        .map(|entry| LostWrite {
            acknowledged_by: entry.primary.to_string(),
            position: entry.position,
            request: entry.request,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_core::{Checksum, Txid};

    fn at(txid: u64) -> Position {
        Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
    }

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn f7_what_lies_beyond_the_new_reigns_beginning_is_lost_unless_its_outcome_is_there() {
        let ledger = Ledger::new(Duration::from_secs(60));
        let (there, gone, early) = (RequestId::new(), RequestId::new(), RequestId::new());
        for (position, request) in [(5, None), (6, Some(there)), (7, Some(gone)), (8, None), (3, Some(early))]
        {
            ledger.note(name("a"), at(position), request);
        }
        ledger.note(name("b"), at(9), None);
        let former = ledger.of_former(&name("b"));
        assert_eq!(former.len(), 5);
        assert!(ledger.of_former(&name("b")).is_empty(), "told once");
        let lost = lost(former, at(5), |id| (id != early).then_some(id == there));
        assert_eq!(lost.iter().map(|write| write.position).collect::<Vec<_>>(), [at(7), at(8)]);
        assert_eq!(lost[0].request, Some(gone));
        assert_eq!(ledger.of_former(&name("c")).len(), 1, "b's own was kept");
    }

    #[test]
    fn the_ledger_is_bounded() {
        let ledger = Ledger::new(Duration::from_secs(60));
        for txid in 0..REMEMBERED as u64 + 10 {
            ledger.note(name("a"), at(txid), None);
        }
        let former = ledger.of_former(&name("b"));
        assert_eq!((former.len(), former[0].position), (REMEMBERED, at(10)));
    }
}
