//! Counters of the application's calls: the figures of `GET /status`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use litefs_diesel::{LiteFs, RoleKind};
use serde::{Deserialize, Serialize};

use super::trips;

/// The number of durations that are stored; later ones are only counted.
const MAX_SAMPLES: usize = 100_000;

/// One call under way.
pub(super) struct Call {
    role: RoleKind,
    trips_before: u64,
    started: Instant,
}

impl Call {
    pub(super) fn start(litefs: &LiteFs) -> Self {
        Self {
            role: litefs.role().kind(),
            trips_before: trips::of_this_thread(),
            started: Instant::now(),
        }
    }

    fn left_this_node(&self) -> bool {
        trips::of_this_thread() > self.trips_before
    }
}

/// The counters of one node.
#[derive(Debug, Default)]
pub(super) struct Meter {
    forwarded: AtomicU64,
    local_writes: AtomicU64,
    remote_reads: AtomicU64,
    replica_reads: AtomicU64,
    primary_reads: AtomicU64,
    forwards: Mutex<Vec<u32>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Writes that ran on another node.
    pub(crate) forwarded: u64,
    /// Writes that ran on this node's file.
    pub(crate) local_writes: u64,
    /// Reads that this node answered from its own file as a replica.
    pub(crate) local_reads: u64,
    /// Reads that this node answered from its own file as the primary.
    pub(crate) primary_reads: u64,
    /// Reads that ran on another node, because this node had not caught up in time.
    pub(crate) remote_reads: u64,
}

impl Meter {
    pub(super) fn read(&self, call: Call) {
        let counter = match (call.left_this_node(), call.role) {
            (true, _) => &self.remote_reads,
            (false, RoleKind::Replica) => &self.replica_reads,
            (false, _) => &self.primary_reads,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write(&self, call: Call) {
        if call.left_this_node() {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
            self.sample(call.started.elapsed());
        } else {
            self.local_writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sample(&self, took: Duration) {
        let mut forwards = self.forwards.lock().expect("no code panics while it holds the samples");
        if forwards.len() < MAX_SAMPLES {
            forwards.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            forwarded: of(&self.forwarded),
            local_writes: of(&self.local_writes),
            local_reads: of(&self.replica_reads),
            primary_reads: of(&self.primary_reads),
            remote_reads: of(&self.remote_reads),
        }
    }

    /// How long each forwarded write took from Diesel's point of view, in microseconds.
    pub(super) fn forwards(&self) -> Vec<u32> {
        self.forwards.lock().expect("no code panics while it holds the samples").clone()
    }
}
