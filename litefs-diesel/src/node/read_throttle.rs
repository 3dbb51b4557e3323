//! Replication gets air: reads are held back for the moment that LiteFS needs to apply.
//!
//! To apply a transaction LiteFS takes all of SQLite's locks, and while readers overlap there is
//! never a moment without one (measured on LiteFS 0.5.14: four tight readers delay replication by
//! seconds; held back while their node is behind, by milliseconds). Nothing on the node itself says
//! that it is behind: each replica follows the primary's position, and a read that finds its own
//! file behind it waits, briefly, before it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position, Role, Tracker, Txid};
use litefs_rpc::client::{CallError, PrimaryLocation, PrimaryLocator};
use litefs_rpc::wire::{PrimaryReport, ReplicaReport, ServerError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::loss::detector::LossDetector;
use crate::node::Forwarding;
use crate::node::own_name::own_name;

/// How long nothing is held back after a pause that was in vain: something else keeps LiteFS from
/// applying.
const AFTER_IN_VAIN: Duration = Duration::from_secs(1);
/// The pause between two questions while somebody reads here, and while nobody does.
const READING: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_millis(25);
/// How long a question may take; the primary answers after a second at the latest.
const QUESTION: Duration = Duration::from_secs(5);
/// The pause after a question that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// What readers look at: a few loads where there is nothing to wait for.
#[derive(Debug)]
pub(crate) struct ReadThrottle {
    /// Whether the local file is in the history of the primary of the moment. After a failover a
    /// file may be further on, in a history that is over, until LiteFS replaces it; its TXIDs then
    /// say nothing.
    same_history: AtomicBool,
    history: watch::Sender<bool>,
    /// The primary's TXID, as far as it is known here.
    target: AtomicU64,
    /// Somebody has read since this was looked at last.
    read: AtomicBool,
    /// Milliseconds of the process's clock until which nothing is held back.
    open_until: AtomicU64,
    held: AtomicU64,
    given_up: AtomicU64,
}

impl Default for ReadThrottle {
    fn default() -> Self {
        Self {
            same_history: AtomicBool::new(true),
            history: watch::Sender::new(true),
            target: AtomicU64::new(0),
            read: AtomicBool::new(false),
            open_until: AtomicU64::new(0),
            held: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }
}

impl ReadThrottle {
    /// Whether the local file's TXIDs can be compared with the primary's.
    #[inline]
    pub(crate) fn same_history(&self) -> bool {
        self.same_history.load(Ordering::Acquire)
    }

    /// Wakes when that changes.
    pub(crate) fn history_changes(&self) -> watch::Receiver<bool> {
        self.history.subscribe()
    }

    fn set_same_history(&self, same_history: bool) {
        self.same_history.store(same_history, Ordering::Release);
        self.history
            .send_if_modified(|before| std::mem::replace(before, same_history) != same_history);
    }

    /// Whether a read may begin, with the local file at `here`.
    #[inline]
    pub(crate) fn may_read(&self, here: Txid) -> bool {
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        self.target.load(Ordering::Relaxed) <= here.get()
    }

    /// How far the local file should come before a read begins; `None` where pauses are in vain.
    pub(crate) fn target(&self, start: Instant) -> Option<Txid> {
        let now = millis(start);
        (now >= self.open_until.load(Ordering::Relaxed))
            .then(|| Txid::new(self.target.load(Ordering::Relaxed)))
    }

    pub(crate) fn note(&self, in_time: bool, start: Instant) {
        self.held.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("litefs_held_reads_total").increment(1);
        if !in_time {
            self.given_up.fetch_add(1, Ordering::Relaxed);
            let until =
                millis(start) + u64::try_from(AFTER_IN_VAIN.as_millis()).unwrap_or(u64::MAX);
            self.open_until.store(until, Ordering::Relaxed);
        }
    }

    /// How many reads were held back, and how many of them in vain.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.held.load(Ordering::Relaxed), self.given_up.load(Ordering::Relaxed))
    }

    /// Another history may be shorter.
    fn forget(&self) {
        self.target.store(0, Ordering::Relaxed);
    }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Follows the primary for as long as the tracker lives: tells it where this node is, hears where
/// it is.
pub(crate) async fn follow(
    tracker: Tracker,
    forwarding: Arc<Forwarding>,
    read_throttle: Arc<ReadThrottle>,
    loss_detector: LossDetector,
    me: impl Fn() -> (String, Option<String>),
    stop: CancellationToken,
) {
    let mut roles = tracker.subscribe();
    let mut last = None;
    loop {
        let state = roles.borrow_and_update().clone();
        read_throttle.forget();
        loss_detector.ack_log.next_generation();
        match &state.role {
            Role::Primary | Role::Standalone => {
                last = None;
                read_throttle.set_same_history(true);
            }
            Role::Replica { primary } if last.as_ref() != Some(primary) => {
                last = Some(primary.clone());
                read_throttle.set_same_history(false);
            }
            Role::Replica { .. } | Role::Unknown => {}
        }
        let work = async {
            match &state.role {
                Role::Replica { primary } => {
                    follow_one(&tracker, &forwarding, &read_throttle, &loss_detector, primary, &me)
                        .await
                }
                Role::Primary => look_here(&tracker, &loss_detector, state.term_start).await,
                Role::Standalone | Role::Unknown => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
            () = work => {}
        }
    }
}

/// Looks at what was acknowledged before this node's own term, and at what is acknowledged late.
async fn look_here(tracker: &Tracker, loss_detector: &LossDetector, term_start: Option<Position>) {
    let Some(term_start) = term_start.or_else(|| tracker.read_position().ok()) else { return };
    loop {
        let previous = loss_detector.ack_log.of_former();
        if !previous.is_empty() {
            loss_detector.look(previous, &own_name(tracker).await, term_start).await;
        }
        loss_detector.ack_log.late().await;
    }
}

async fn follow_one(
    tracker: &Tracker,
    forwarding: &Forwarding,
    read_throttle: &ReadThrottle,
    loss_detector: &LossDetector,
    primary: &NodeName,
    me: &impl Fn() -> (String, Option<String>),
) {
    let mut term = None;
    loop {
        let (node, address) = me();
        let report = ReplicaReport { node, address, position: tracker.last_position() };
        let known = Txid::new(read_throttle.target.load(Ordering::Relaxed));
        // Taken before the primary is asked: whatever it acknowledged of this, it has then.
        let previous = loss_detector.ack_log.of_former();
        // The primary answers once there is news of its position; that this file has come into its
        // history is news as well.
        let known =
            if previous.is_empty() && read_throttle.same_history() { known } else { Txid::new(0) };
        let locator = forwarding.locator();
        // Taken before the question: an address that is learned while it is asked is news.
        let seen = locator.location();
        let asked = async {
            let asked = ask(forwarding, &seen, report, known).await;
            asked.inspect_err(|_| read_throttle.forget())
        };
        let pause = match answer(locator, &seen, asked, connected(forwarding, &seen)).await {
            Some(followed) => {
                read_throttle.target.store(followed.position.txid.get(), Ordering::Relaxed);
                // Once in its history, it stays there for as long as the primary does.
                if followed.shared {
                    read_throttle.set_same_history(true);
                }
                // It may have been deposed and come back, unnoticed here.
                if term
                    .replace(followed.term_start)
                    .is_some_and(|before| before != followed.term_start)
                {
                    loss_detector.ack_log.next_generation();
                }
                if followed.shared
                    && !previous.is_empty()
                    && has_come(tracker, followed.position).await
                {
                    loss_detector.look(previous, primary, followed.term_start).await;
                }
                match followed.awaited
                    || !read_throttle.same_history()
                    || read_throttle.read.swap(false, Ordering::Relaxed)
                {
                    true => READING,
                    false => IDLE,
                }
            }
            None => continue,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether the local file gets to where the primary was, in time.
async fn has_come(tracker: &Tracker, position: Position) -> bool {
    let deadline = tokio::time::Instant::now() + AFTER_FAILURE;
    tracker.wait_for_txid(position.txid, deadline).await.is_ok()
}

/// The answer to a question to the primary, which was at `seen` when `asked` was made. `None`:
/// there is none, and now is the time to ask again: the primary is elsewhere or its address was
/// learned, a connection to it was opened after none could be, or some time has passed.
async fn answer<T>(
    locator: &impl PrimaryLocator,
    seen: &PrimaryLocation,
    asked: impl Future<Output = Result<T, CallError>>,
    connected: impl Future<Output = ()>,
) -> Option<T> {
    let until = |time: Duration| locator.changed(seen, tokio::time::Instant::now() + time);
    let error = tokio::select! {
        asked = asked => match asked {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        },
        () = until(QUESTION) => return None,
    };
    tracing::debug!(%error, "cannot follow the primary");
    tokio::select! {
        () = until(AFTER_FAILURE) => {}
        () = connected, if matches!(error, CallError::Unreachable { .. }) => {}
    }
    None
}

/// Returns once there is a connection to the primary, for example that of a forwarded write.
async fn connected(forwarding: &Forwarding, seen: &PrimaryLocation) {
    match seen {
        PrimaryLocation::Elsewhere(primary) => {
            forwarding.client().connected(&primary.address).await
        }
        PrimaryLocation::Here | PrimaryLocation::Nowhere => std::future::pending().await,
    }
}

async fn ask(
    forwarding: &Forwarding,
    seen: &PrimaryLocation,
    report: ReplicaReport,
    known: Txid,
) -> Result<PrimaryReport, CallError> {
    let PrimaryLocation::Elsewhere(primary) = seen else {
        return Err(CallError::Refused(ServerError::NotPrimary { hint: None }));
    };
    let link = forwarding.client().connect(&primary.address).await?;
    link.follow(report, known, Instant::now() + QUESTION).await
}

#[cfg(test)]
mod tests;
