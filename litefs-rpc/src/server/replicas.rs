//! The replicas that follow this node, and their positions.

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
/// How many of the latest positions are searched for a duplicate.
const DUPLICATE_WINDOW: usize = 16;
/// A replica whose last report is older than this does not count.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// The replicas and their latest reports.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    known: Mutex<HashMap<String, (ReplicaReport, Instant)>>,
    /// The number of callers that wait for replicas.
    waiting: AtomicUsize,
    /// Wakes the callers that wait, at each report.
    updated: Notify,
    /// The positions of this node since its term started.
    history: Mutex<VecDeque<Position>>,
    term_start: Mutex<Option<Position>>,
    /// Wakes the long polls of the replicas when a caller starts to wait.
    pub(super) waiter_arrived: Notify,
}

impl Replicas {
    /// Records a report.
    pub(super) fn update(&self, report: ReplicaReport) {
        let mut known = self.known();
        known.retain(|_, (_, at)| at.elapsed() < FORGOTTEN_AFTER);
        // Nodes on one machine may have the same name.
        let key = report.address.clone().unwrap_or_else(|| report.node.clone());
        known.insert(key, (report, Instant::now()));
        drop(known);
        self.updated.notify_waiters();
    }

    /// Records this node's positions for [`shares_history`](Self::shares_history), until the role
    /// guard is dropped.
    pub(super) async fn track_history(&self, role_guard: &dyn RoleGuard) {
        let (mut positions, mut roles) = (role_guard.positions(), role_guard.changes());
        loop {
            let position = *positions.borrow_and_update();
            let writable = role_guard.writable().is_some();
            roles.borrow_and_update();
            {
                let mut history =
                    self.history.lock().expect("no code panics while it holds the history");
                match position {
                    // Another node is the primary. The history starts with this node's term.
                    _ if !writable => {
                        history.clear();
                        *self.term_start() = None;
                    }
                    Some(position) => {
                        let mut term_start = self.term_start();
                        if term_start.is_none() {
                            // The writer may have recorded a position of the previous term.
                            history.clear();
                            // The watched position may be old; `-pos` is current.
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

    /// Records the position of a commit, which the writer knows first.
    pub(super) fn record_position(&self, position: Position) {
        remember(
            &mut self.history.lock().expect("no code panics while it holds the history"),
            position,
        );
    }

    /// The position at which this node's term started; `None` while it is not the primary.
    pub(super) fn term_start(&self) -> std::sync::MutexGuard<'_, Option<Position>> {
        self.term_start.lock().expect("no code panics while it holds the start of the term")
    }

    /// Whether a replica at `position` shares this primary's history. `false` for a replica that is
    /// too far behind to tell.
    pub(super) fn shares_history(
        &self,
        position: Option<Position>,
        role_guard: &dyn RoleGuard,
    ) -> bool {
        let Some(position) = position else { return false };
        let history = self.history.lock().expect("no code panics while it holds the history");
        history.contains(&position) || role_guard.position() == Ok(position)
    }

    /// Whether a caller waits for replicas.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The replica of that name, or the one with the highest position.
    pub(super) fn successor(&self, name: Option<&str>) -> Option<ReplicaReport> {
        let known = self.known();
        let alive = known
            .values()
            .filter(|(_, at)| at.elapsed() < FORGOTTEN_AFTER)
            .map(|(report, _)| report);
        let able = alive.filter(|report| report.address.is_some());
        match name {
            Some(name) => able.into_iter().find(|report| report.node == name).cloned(),
            None => {
                able.max_by_key(|report| report.position.map(|position| position.txid)).cloned()
            }
        }
    }

    /// Returns once there is a [`successor`](Self::successor), or at the deadline.
    pub(super) async fn wait_for_replica(&self, name: Option<&str>, deadline: Instant) {
        loop {
            // Registered before the check, so that no report in between is missed.
            let updated = self.updated.notified();
            if self.successor(name).is_some()
                || tokio::time::timeout_at(deadline.into(), updated).await.is_err()
            {
                return;
            }
        }
    }

    /// Returns once `wanted` replicas have reached `position`.
    pub(super) async fn wait_for_position(
        &self,
        position: Position,
        wanted: usize,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.waiter_arrived.notify_waiters();
        loop {
            // Registered before the check, so that no report in between is missed.
            let updated = self.updated.notified();
            let reached = self.count(position);
            if reached >= wanted {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline.into(), updated).await.is_err() {
                return Err(ServerError::NotReplicated { reached: self.count(position), wanted });
            }
        }
    }

    fn count(&self, position: Position) -> usize {
        let known = self.known();
        let has =
            |report: &ReplicaReport| report.position.is_some_and(|at| at.txid >= position.txid);
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

/// Appends a position. The writer and the tracker may both report it, one of them a little late.
fn remember(history: &mut VecDeque<Position>, position: Position) {
    if history.iter().rev().take(DUPLICATE_WINDOW).any(|known| *known == position) {
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
        ReplicaReport {
            node: node.into(),
            address: address.map(Into::into),
            position: Some(at(txid)),
        }
    }

    #[test]
    fn the_successor_is_the_one_named_or_the_one_that_has_come_furthest() {
        let replicas = Replicas::default();
        assert_eq!(replicas.successor(None), None);
        replicas.update(report("b", 7, Some("b:1")));
        replicas.update(report("c", 8, Some("c:1")));
        replicas.update(report("d", 9, None));
        assert_eq!(replicas.successor(None).map(|f| f.node).as_deref(), Some("c"));
        assert_eq!(replicas.successor(Some("b")).map(|f| f.node).as_deref(), Some("b"));
        assert_eq!(replicas.successor(Some("d")), None, "it takes no requests");
        replicas.update(report("b", 9, Some("b:1")));
        assert_eq!(replicas.successor(None).map(|f| f.node).as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_replica_that_was_missing_or_at_the_deadline() {
        let replicas = Replicas::default();
        replicas.update(report("b", 7, None));
        let soon = || Instant::now() + Duration::from_secs(1);
        assert_eq!(replicas.wait_for_position(at(7), 1, soon()).await, Ok(()));
        let (reached, ()) = tokio::join!(replicas.wait_for_position(at(8), 2, soon()), async {
            assert!(replicas.has_waiters());
            replicas.update(report("b", 8, None));
            replicas.update(report("c", 9, None));
        });
        assert_eq!(reached, Ok(()));
        assert!(!replicas.has_waiters());
        let late =
            replicas.wait_for_position(at(9), 2, Instant::now() + Duration::from_millis(5)).await;
        assert_eq!(late, Err(ServerError::NotReplicated { reached: 1, wanted: 2 }));
    }
}
