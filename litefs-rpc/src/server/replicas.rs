//! Which replicas follow this node, and how far they have come.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use litefs_core::Position;
use tokio::sync::Notify;

use super::role_guard::RoleGuard;
use crate::wire::{ReplicaReport, ServerError};

/// How many of its own positions a primary remembers.
const REMEMBERED: usize = 1_024;
/// How far back a position that is told twice is looked for.
const TOLD_TWICE: usize = 16;
/// A replica that has not been heard of for this long does not count.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// The replicas, as they tell of themselves.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    known: Mutex<HashMap<String, (ReplicaReport, Instant)>>,
    /// How many wait for replicas.
    waiting: AtomicUsize,
    moved: Notify,
    /// Where this node has been since it is the primary.
    history: Mutex<VecDeque<Position>>,
    term_start: Mutex<Option<Position>>,
    /// Wakes the replicas that listen, because somebody waits for them.
    pub(super) wanted: Notify,
}

impl Replicas {
    pub(super) fn hear(&self, report: ReplicaReport) {
        let mut known = self.known();
        known.retain(|_, (_, at)| at.elapsed() < FORGOTTEN_AFTER);
        // Nodes on one machine may go by one name.
        let key = report.address.clone().unwrap_or_else(|| report.node.clone());
        known.insert(key, (report, Instant::now()));
        drop(known);
        self.moved.notify_waiters();
    }

    /// Keeps what [`has_been_at`](Self::has_been_at) needs, for as long as the role guard tells.
    pub(super) async fn keep_history(&self, role_guard: &dyn RoleGuard) {
        let (mut positions, mut roles) = (role_guard.positions(), role_guard.changes());
        loop {
            let position = *positions.borrow_and_update();
            let writable = role_guard.writable().is_some();
            roles.borrow_and_update();
            {
                let mut history = self.history.lock().expect("no code panics while it holds the history");
                match position {
                    // Another's history, until this node's begins with where it is then.
                    _ if !writable => {
                        history.clear();
                        *self.term_start() = None;
                    }
                    Some(position) => {
                        let mut term_start = self.term_start();
                        if term_start.is_none() {
                            // The writer may have noted the last word of a former term.
                            history.clear();
                            // What was heard of last may be old; `-pos` is not.
                            *term_start = Some(role_guard.position().unwrap_or(position));
                        }
                        remember(&mut history, position);
                    }
                    None => {}
                }
            }
            let ended = tokio::select! {
                changed = positions.changed() => changed.is_err(),
                changed = roles.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    /// Where the writer has just been, which it knows before anybody else.
    pub(super) fn note(&self, position: Position) {
        remember(&mut self.history.lock().expect("no code panics while it holds the history"), position);
    }

    /// Where this node's term began; `None` while it has none.
    pub(super) fn term_start(&self) -> std::sync::MutexGuard<'_, Option<Position>> {
        self.term_start.lock().expect("no code panics while it holds the beginning")
    }

    /// Whether a replica at `position` shares this primary's history. One that is far behind is not known; it moves on.
    pub(super) fn has_been_at(&self, position: Option<Position>, role_guard: &dyn RoleGuard) -> bool {
        let Some(position) = position else { return false };
        let history = self.history.lock().expect("no code panics while it holds the history");
        history.contains(&position) || role_guard.position() == Ok(position)
    }

    /// Whether somebody waits for news of them.
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The replica of that name, or the one that has come furthest.
    pub(super) fn successor(&self, name: Option<&str>) -> Option<ReplicaReport> {
        let known = self.known();
        let alive = known.values().filter(|(_, at)| at.elapsed() < FORGOTTEN_AFTER).map(|(report, _)| report);
        let able = alive.filter(|report| report.address.is_some());
        match name {
            Some(name) => able.into_iter().find(|report| report.node == name).cloned(),
            None => able.max_by_key(|report| report.position.map(|position| position.txid)).cloned(),
        }
    }

    /// Returns once there is a [`successor`](Self::successor), or at the deadline.
    pub(super) async fn appear(&self, name: Option<&str>, deadline: Instant) {
        loop {
            // Registered before the look, so that nothing heard in between is missed.
            let moved = self.moved.notified();
            if self.successor(name).is_some()
                || tokio::time::timeout_at(deadline.into(), moved).await.is_err()
            {
                return;
            }
        }
    }

    /// Returns once `wanted` replicas have reached `position`.
    pub(super) async fn reach(
        &self,
        position: Position,
        wanted: usize,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.wanted.notify_waiters();
        loop {
            // Registered before the look, so that nothing heard in between is missed.
            let moved = self.moved.notified();
            let reached = self.count(position);
            if reached >= wanted {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline.into(), moved).await.is_err() {
                return Err(ServerError::NotReplicated { reached: self.count(position), wanted });
            }
        }
    }

    fn count(&self, position: Position) -> usize {
        let known = self.known();
        let has = |report: &ReplicaReport| report.position.is_some_and(|at| at.txid >= position.txid);
        known.values().filter(|(report, _)| has(report)).count()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (ReplicaReport, Instant)>> {
        self.known.lock().expect("no code panics while it holds the replicas")
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A position may be told twice, and then a little late.
fn remember(history: &mut VecDeque<Position>, position: Position) {
    if history.iter().rev().take(TOLD_TWICE).any(|known| *known == position) {
        return;
    }
    if history.len() == REMEMBERED {
        history.pop_front();
    }
    history.push_back(position);
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_core::{Checksum, Txid};

    fn at(txid: u64) -> Position {
        Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
    }

    fn report(node: &str, txid: u64, address: Option<&str>) -> ReplicaReport {
        ReplicaReport { node: node.into(), address: address.map(Into::into), position: Some(at(txid)) }
    }

    #[test]
    fn the_successor_is_the_one_named_or_the_one_that_has_come_furthest() {
        let replicas = Replicas::default();
        assert_eq!(replicas.successor(None), None);
        replicas.hear(report("b", 7, Some("b:1")));
        replicas.hear(report("c", 8, Some("c:1")));
        replicas.hear(report("d", 9, None));
        assert_eq!(replicas.successor(None).map(|f| f.node).as_deref(), Some("c"));
        assert_eq!(replicas.successor(Some("b")).map(|f| f.node).as_deref(), Some("b"));
        assert_eq!(replicas.successor(Some("d")), None, "it takes no requests");
        replicas.hear(report("b", 9, Some("b:1")));
        assert_eq!(replicas.successor(None).map(|f| f.node).as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_replica_that_was_missing_or_at_the_deadline() {
        let replicas = Replicas::default();
        replicas.hear(report("b", 7, None));
        let soon = || Instant::now() + Duration::from_secs(1);
        assert_eq!(replicas.reach(at(7), 1, soon()).await, Ok(()));
        let (reached, ()) = tokio::join!(replicas.reach(at(8), 2, soon()), async {
            assert!(replicas.are_awaited());
            replicas.hear(report("b", 8, None));
            replicas.hear(report("c", 9, None));
        });
        assert_eq!(reached, Ok(()));
        assert!(!replicas.are_awaited());
        let late = replicas.reach(at(9), 2, Instant::now() + Duration::from_millis(5)).await;
        assert_eq!(late, Err(ServerError::NotReplicated { reached: 1, wanted: 2 }));
    }
}
