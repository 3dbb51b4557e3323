//! What the handles and the tasks of one tracker have in common.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::positions::Positions;
use super::{DetectorState, SingleFlight};
use crate::debounce::Debounce;
use crate::evidence::{Evidence, ObservationSeq};
use crate::merge::merge;
use crate::mount::{self, PositionFile, Presence, Probe};
use crate::sync::lock;
use crate::{
    Config, Mount, NodeName, Observation, PendingCommits, Role, RoleStamp, RoleState,
    UnconfirmedCommit,
};

/// What changes with each observation, under one lock.
#[derive(Debug)]
struct Inner {
    evidence: Evidence,
    debounce: Debounce,
    stopped: bool,
}

#[derive(Debug)]
pub(crate) struct TrackerState {
    pub(crate) config: Config,
    pub(crate) mount: Mount,
    pub(crate) role: watch::Sender<RoleState>,
    pub(crate) presence: watch::Sender<Presence>,
    pub(crate) positions: Positions,
    pub(crate) info: SingleFlight,
    /// Requests to check the mount.
    pub(crate) mount_probe: SingleFlight,
    pub(crate) addresses: Addresses,
    pub(crate) pending_commits: PendingCommits,
    pub(crate) unconfirmed_commit: UnconfirmedCommit,
    pub(crate) detectors: Mutex<BTreeMap<&'static str, DetectorState>>,
    pub(crate) stop: CancellationToken,
    /// Wakes the task that publishes what the debounce has held.
    pub(crate) held: Notify,
    /// Wakes the start of the tracker, which waits for a first report.
    pub(crate) reported: Notify,
    stamp: AtomicU64,
    last_seq: AtomicU64,
    inner: Mutex<Inner>,
}

impl TrackerState {
    pub(crate) fn new(config: Config) -> Self {
        let mount = Mount::new(config.database());
        let unknown = RoleState::new(Role::Unknown, 0);
        let evidence = Evidence::new(config.node().cloned(), mount::has_been_seen(mount.dir()));
        Self {
            presence: watch::Sender::new(evidence.presence()),
            positions: Positions::new(),
            info: SingleFlight::new(config.detectors().info),
            mount_probe: SingleFlight::new(true),
            addresses: Addresses::default(),
            pending_commits: PendingCommits::default(),
            unconfirmed_commit: UnconfirmedCommit::default(),
            detectors: Mutex::default(),
            stop: CancellationToken::new(),
            held: Notify::new(),
            reported: Notify::new(),
            stamp: AtomicU64::new(unknown.stamp().pack()),
            last_seq: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                evidence,
                debounce: Debounce::new(config.debounce()),
                stopped: false,
            }),
            role: watch::Sender::new(unknown),
            config,
            mount,
        }
    }

    #[inline]
    pub(crate) fn stamp(&self) -> RoleStamp {
        RoleStamp::unpack(self.stamp.load(Ordering::SeqCst))
    }

    /// To be drawn before an observation begins.
    pub(crate) fn next_seq(&self) -> ObservationSeq {
        ObservationSeq(self.last_seq.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn own_name(&self) -> Option<NodeName> {
        lock(&self.inner).evidence.own_name.clone()
    }

    pub(crate) fn stream_is_current(&self) -> bool {
        lock(&self.inner).evidence.stream_is_current()
    }

    /// Whether any source that can prove a role has reported.
    pub(crate) fn has_authority(&self) -> bool {
        lock(&self.inner).evidence.authority().is_some()
    }

    /// Takes in an observation and publishes the role that follows.
    pub(crate) fn report(&self, at: ObservationSeq, observation: Observation) {
        if let Observation::Transaction { database, position } = &observation {
            if database == self.config.database_name() {
                self.positions.record_event(*position);
            }
            return;
        }
        tracing::trace!(?at, ?observation, "observed");
        if self.update(|evidence| evidence.apply(at, observation)) {
            self.info.request();
        }
    }

    /// Takes in a look at the mount directory.
    pub(crate) fn record_probe(&self, probe: Probe) {
        self.update(|evidence| evidence.record_probe(probe));
    }

    fn update<T>(&self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let mut inner = lock(&self.inner);
        let result = change(&mut inner.evidence);
        if inner.stopped {
            return result;
        }
        let remounted = self.update_presence(inner.evidence.presence());
        let epoch = self.role.borrow().epoch;
        let role = merge(&inner.evidence);
        if let Some(role) = inner.debounce.offer(role, Instant::now()) {
            self.publish(role);
        }
        if remounted && self.role.borrow().epoch == epoch {
            self.advance_epoch();
        }
        if inner.debounce.due().is_some() {
            self.held.notify_one();
        }
        result
    }

    /// Whether the mount is lost now and was not, or the other way round.
    fn update_presence(&self, presence: Presence) -> bool {
        let mut before = presence;
        self.presence.send_if_modified(|known| {
            before = std::mem::replace(known, presence);
            before != presence
        });
        let changed = before != presence;
        if changed {
            self.positions.mount_changed();
        }
        if changed && presence != Presence::NeverSeen {
            mount::remember(self.mount.dir());
        }
        changed && [before, presence].contains(&Presence::Lost)
    }

    /// When the debounce has something to publish.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        lock(&self.inner).debounce.due()
    }

    /// Publishes what the debounce has held for long enough.
    pub(crate) fn publish_held(&self) {
        let mut inner = lock(&self.inner);
        if let Some(role) = inner.debounce.tick(Instant::now()).filter(|_| !inner.stopped) {
            self.publish(role);
        }
    }

    /// To be called with the state locked, so that the stamp and the role change in the same order.
    fn publish(&self, role: Role) {
        if self.role.borrow().role == role {
            return;
        }
        // With a descriptor of its own: the one that is kept may hang with the mount it belongs to.
        let term_start = (role == Role::Primary)
            .then(|| PositionFile::default().read(&self.mount).ok())
            .flatten();
        self.role.send_modify(|state| {
            tracing::info!(
                from = %state.role,
                to = %role,
                mount = %self.mount.dir().display(),
                "role changed"
            );
            *state = RoleState { role, epoch: state.epoch + 1, term_start };
            // Inside, so that no thread reads the new role and then the old stamp.
            self.stamp.store(state.stamp().pack(), Ordering::SeqCst);
        });
    }

    /// Publishes the same role anew: what was prepared for the mount as it was has to be looked at
    /// again.
    fn advance_epoch(&self) {
        self.role.send_modify(|state| {
            state.epoch += 1;
            self.stamp.store(state.stamp().pack(), Ordering::SeqCst);
        });
    }

    pub(crate) fn shut_down(&self) {
        let mut inner = lock(&self.inner);
        if !std::mem::replace(&mut inner.stopped, true)
            && self.role.borrow().role != Role::Standalone
        {
            self.publish(Role::Unknown);
        }
        self.stop.cancel();
    }
}
