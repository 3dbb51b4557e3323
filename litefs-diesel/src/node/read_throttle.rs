//! The read throttle: reads yield to replication.
//!
//! To apply a transaction LiteFS takes all of SQLite's locks, and while reads overlap it never gets
//! them. On LiteFS 0.5.14 four tight readers delay replication by seconds; with the throttle the
//! delay is milliseconds. Nothing on the node itself says that it is behind. So each replica
//! follows the primary's position (`follow`), and a read that finds its own file behind pauses
//! before it begins, at most `read_pause`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use litefs_core::Txid;
use tokio::sync::watch;

/// How long no read pauses after a pause that did not help: something else keeps LiteFS from
/// applying.
const AFTER_IN_VAIN: Duration = Duration::from_secs(1);

/// What a read checks before it begins: a few atomic loads if it need not wait.
#[derive(Debug)]
pub(crate) struct ReadThrottle {
    /// Whether the local file is in the current primary's history. After a failover a file may be
    /// ahead, in a history that has ended, until LiteFS replaces it. Its TXIDs cannot be compared
    /// until then.
    same_history: AtomicBool,
    history: watch::Sender<bool>,
    /// The primary's TXID, as far as this node knows.
    target: AtomicU64,
    /// A read has begun since this was last taken.
    read: AtomicBool,
    /// Milliseconds of the process's clock until which no read pauses.
    open_until: AtomicU64,
    paused: AtomicU64,
    in_vain: AtomicU64,
}

impl Default for ReadThrottle {
    fn default() -> Self {
        Self {
            same_history: AtomicBool::new(true),
            history: watch::Sender::new(true),
            target: AtomicU64::new(0),
            read: AtomicBool::new(false),
            open_until: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            in_vain: AtomicU64::new(0),
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

    pub(super) fn set_same_history(&self, same_history: bool) {
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

    /// The TXID that the local file should reach before a read begins. `None`: do not pause.
    pub(crate) fn target(&self, start: Instant) -> Option<Txid> {
        let now = millis(start);
        (now >= self.open_until.load(Ordering::Relaxed)).then(|| self.known())
    }

    /// Records a pause. `in_time`: the local file has reached the target.
    pub(crate) fn note(&self, in_time: bool, start: Instant) {
        self.paused.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("litefs_held_reads_total").increment(1);
        if !in_time {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
            let until =
                millis(start) + u64::try_from(AFTER_IN_VAIN.as_millis()).unwrap_or(u64::MAX);
            self.open_until.store(until, Ordering::Relaxed);
        }
    }

    /// How many reads paused, and how many of the pauses did not help.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.paused.load(Ordering::Relaxed), self.in_vain.load(Ordering::Relaxed))
    }

    /// The primary's TXID; 0 if it is not known.
    pub(super) fn known(&self) -> Txid {
        Txid::new(self.target.load(Ordering::Relaxed))
    }

    /// The primary is at `txid`.
    pub(super) fn follow_to(&self, txid: Txid) {
        self.target.store(txid.get(), Ordering::Relaxed);
    }

    /// The primary's TXID is not known any more. Another history may be shorter.
    pub(super) fn forget(&self) {
        self.target.store(0, Ordering::Relaxed);
    }

    /// Whether a read has begun since the last call.
    pub(super) fn take_read(&self) -> bool {
        self.read.swap(false, Ordering::Relaxed)
    }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_read_pauses_for_a_while_after_a_pause_in_vain() {
        let (read_throttle, start) = (ReadThrottle::default(), Instant::now());
        assert!(read_throttle.may_read(Txid::new(0)));
        read_throttle.follow_to(Txid::new(5));
        assert!(!read_throttle.may_read(Txid::new(4)) && read_throttle.may_read(Txid::new(5)));
        assert_eq!(read_throttle.target(start), Some(Txid::new(5)));
        read_throttle.note(true, start);
        assert_eq!(read_throttle.target(start), Some(Txid::new(5)));
        read_throttle.note(false, start);
        assert_eq!(read_throttle.target(start), None);
        assert_eq!(read_throttle.target(start - AFTER_IN_VAIN - AFTER_IN_VAIN), Some(Txid::new(5)));
        assert_eq!(read_throttle.counts(), (2, 1));
        read_throttle.forget();
        assert!(read_throttle.may_read(Txid::new(0)));
    }
}
