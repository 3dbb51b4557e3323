//! Acknowledged writes that a failover has lost, told to somebody.
//!
//! LiteFS replicates after the commit: what a primary acknowledged and had not shipped when it died
//! is gone. That cannot be prevented here ([`Durability`](crate::Durability) pays to prevent it),
//! but it is not hidden: each process remembers what it was told is done, and looks whether the
//! next primary has it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position};
use litefs_rpc::wire::RequestId;
use tokio::sync::Notify;

use crate::loss::terms::Term;

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
    /// The write's own name; `None` for one that ran on the primary itself, or was delivered at
    /// most once.
    pub request: Option<RequestId>,
}

/// What a write was acknowledged with: by this it is recognised among [`LostWrites`], should it be
/// lost.
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
    /// Where the term began in which it was acknowledged, where that is this node's own.
    pub(crate) term: Option<Position>,
    /// The acknowledgement log's when the write was begun: whoever acknowledged it, it was not a
    /// primary before that one.
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
pub(crate) struct AckLog {
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

impl AckLog {
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
        let mut ack_log = self.entries();
        let old = |entry: &Entry| entry.at.elapsed() > self.memory;
        while ack_log.entries.len() >= REMEMBERED || ack_log.entries.front().is_some_and(old) {
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

    /// Returns once something was noted that is to be looked at at once.
    pub(crate) async fn late(&self) {
        self.late.notified().await;
    }

    /// What was begun in a generation before this one, by number, oldest first.
    pub(crate) fn of_former(&self) -> Vec<(u64, Acknowledged)> {
        let generation = self.generation();
        let ack_log = self.entries();
        let previous = ack_log.entries.iter().filter(|entry| entry.what.generation != generation);
        previous.map(|entry| (entry.number, entry.what.clone())).collect()
    }

    /// What was looked at in `generation` and is there may still be lost by the next failover; what
    /// is lost is told once.
    pub(crate) fn settle(
        &self,
        looked_at: &[(u64, Acknowledged)],
        lost: &[(u64, LostWrite)],
        generation: u64,
    ) {
        let mut ack_log = self.entries();
        ack_log.entries.retain(|entry| {
            lost.binary_search_by_key(&entry.number, |(number, _)| *number).is_err()
        });
        for entry in &mut ack_log.entries {
            if looked_at.binary_search_by_key(&entry.number, |(number, _)| *number).is_ok() {
                entry.what.generation = generation;
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().expect("no code panics while it holds the ack_log")
    }
}

/// Which of `former` are not in a history that had these `terms`, the last of them the one that
/// lasts. `applied` looks a write up in that history. `own`: the names under which this node's
/// terms may be recorded, the best first.
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

/// The terms after the one in which a write without a name was acknowledged. Each of them has of
/// the ones before what lies up to its beginning. Where the write's own term is unknown, only the
/// last one is certain to come after it, if it is somebody else's.
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
            // Its row is lost, or was never written. Of the terms before it each has written
            // something, so they began earlier.
            (None, Some(term_start)) => index == last || term.term_start.txid >= term_start.txid,
            (None, None) => index == last && !is_its_node(term),
        };
        comes_later.then_some(term)
    })
}

#[cfg(test)]
mod tests;
