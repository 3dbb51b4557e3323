//! The log of writes that were acknowledged to this process, and which of them are lost.
//!
//! LiteFS replicates after the commit. A write that a primary acknowledged and had not sent to any
//! replica when it died is lost. [`Durability`](crate::Durability) prevents that, at a price.
//! Otherwise the loss is reported: each process logs the writes that were acknowledged to it, and
//! after each change of primary it checks whether the new primary has them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position};
use litefs_rpc::wire::RequestId;
use tokio::sync::Notify;

use crate::loss::terms::Term;

/// How many acknowledgements the log keeps, at most.
const MAX_ENTRIES: usize = 8_192;

/// Acknowledged writes that are not in the new primary's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrites {
    /// The node that is the primary now.
    pub primary: String,
    /// The lost writes, oldest first.
    pub writes: Vec<LostWrite>,
}

/// One acknowledged write that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrite {
    /// The node that acknowledged it.
    pub acknowledged_by: String,
    /// The position that was acknowledged; other writes may have shared it.
    pub position: Position,
    /// The id of the write. `None` for a write that ran on the primary itself, or was delivered at
    /// most once.
    pub request: Option<RequestId>,
}

/// What a write was acknowledged with. It identifies the write among [`LostWrites`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// As in [`LostWrite::position`].
    pub position: Position,
    /// As in [`LostWrite::request`].
    pub request: Option<RequestId>,
}

/// Is called with the losses.
pub(crate) type OnLostWrites = Arc<dyn Fn(&LostWrites) + Send + Sync>;

#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    /// `None`: this node itself, whose name in LiteFS may not be known yet.
    pub(crate) primary: Option<NodeName>,
    pub(crate) position: Position,
    pub(crate) request: Option<RequestId>,
    /// The start of the term in which it was acknowledged, if that is a term of this node.
    pub(crate) term: Option<Position>,
    /// The generation of the log when the write began. No primary before that generation's has
    /// acknowledged it.
    pub(crate) generation: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: Instant,
    what: Acknowledged,
}

/// The log of acknowledged writes.
#[derive(Debug)]
pub(crate) struct AckLog {
    /// How long a write is kept: the outcomes of older writes may be pruned.
    retention: Duration,
    /// Counts the primaries. Writes of an earlier generation are checked.
    generation: AtomicU64,
    /// Notified when a write of an earlier generation is acknowledged.
    late: Notify,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    entries: VecDeque<Entry>,
}

impl AckLog {
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            retention: retention / 2,
            generation: AtomicU64::new(0),
            late: Notify::new(),
            entries: Mutex::default(),
        }
    }

    /// To be read before a write is begun.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Starts a generation: another node is the primary, or the same one again.
    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn note(&self, what: Acknowledged) {
        let late = what.generation != self.generation();
        let mut ack_log = self.entries();
        let old = |entry: &Entry| entry.at.elapsed() > self.retention;
        while ack_log.entries.len() >= MAX_ENTRIES || ack_log.entries.front().is_some_and(old) {
            ack_log.entries.pop_front();
        }
        let number = ack_log.next;
        ack_log.next += 1;
        ack_log.entries.push_back(Entry { number, at: Instant::now(), what });
        drop(ack_log);
        if late {
            self.late.notify_one();
        }
    }

    /// Returns once a write of an earlier generation is noted.
    pub(crate) async fn late(&self) {
        self.late.notified().await;
    }

    /// The writes of earlier generations by number, oldest first.
    pub(crate) fn previous(&self) -> Vec<(u64, Acknowledged)> {
        let generation = self.generation();
        let ack_log = self.entries();
        let previous = ack_log.entries.iter().filter(|entry| entry.what.generation != generation);
        previous.map(|entry| (entry.number, entry.what.clone())).collect()
    }

    /// Records a check in `generation`. Lost writes leave the log, so that they are reported once.
    /// The others stay: a later failover may lose them.
    pub(crate) fn checked(
        &self,
        checked: &[(u64, Acknowledged)],
        lost: &[(u64, LostWrite)],
        generation: u64,
    ) {
        let mut ack_log = self.entries();
        ack_log.entries.retain(|entry| {
            lost.binary_search_by_key(&entry.number, |(number, _)| *number).is_err()
        });
        for entry in &mut ack_log.entries {
            if checked.binary_search_by_key(&entry.number, |(number, _)| *number).is_ok() {
                entry.what.generation = generation;
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().expect("no code panics while it holds the log")
    }
}

/// Which of `previous` are not in the history of these `terms`, of which the last is the current
/// one. `applied` says whether the history has a write. `own`: the names under which this node's
/// terms may be recorded, LiteFS's own first.
pub(crate) fn lost(
    previous: &[(u64, Acknowledged)],
    terms: &[Term],
    own: &[NodeName],
    mut applied: impl FnMut(RequestId) -> Option<bool>,
) -> Vec<(u64, LostWrite)> {
    let mut is_lost = |write: &Acknowledged| match write.request.and_then(&mut applied) {
        Some(applied) => !applied,
        None => later(write, terms, own).any(|term| write.position.txid > term.term_start.txid),
    };
    previous
        .iter()
        .filter(|(_, write)| is_lost(write))
        .map(|(number, write)| {
            let acknowledged_by = write
                .primary
                .as_ref()
                .or(own.first())
                .map_or_else(String::new, NodeName::to_string);
            (
                *number,
                LostWrite { acknowledged_by, position: write.position, request: write.request },
            )
        })
        .collect()
}

/// The terms after the one in which a write without an id was acknowledged. The history of each
/// term contains the earlier terms up to its own start. If the write's term is unknown, only the
/// last term certainly comes after it, and only if it is a term of another node.
fn later<'a>(
    write: &'a Acknowledged,
    terms: &'a [Term],
    own: &'a [NodeName],
) -> impl Iterator<Item = &'a Term> {
    let names = write.primary.as_ref().map_or(own, std::slice::from_ref);
    let is_its_node = |term: &Term| names.iter().any(|name| name.as_ref() == term.node);
    let is_its_own = |term: &Term| Some(term.term_start) == write.term && is_its_node(term);
    let known = terms.iter().rposition(is_its_own);
    let (last, term_start) = (terms.len().saturating_sub(1), write.term);
    terms.iter().enumerate().filter_map(move |(index, term)| {
        let comes_later = match (known, term_start) {
            (Some(known), _) => index > known,
            // The term's row is lost, or was never written. Each term before it has written
            // something, so it started earlier.
            (None, Some(term_start)) => index == last || term.term_start.txid >= term_start.txid,
            (None, None) => index == last && !is_its_node(term),
        };
        comes_later.then_some(term)
    })
}

#[cfg(test)]
mod tests;
