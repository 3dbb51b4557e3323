//! What a detector sees of the tracker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::evidence::ObservationSeq;
use crate::sync::lock;
use crate::tracker::{DetectorState, TrackerState};
use crate::{Config, Mount, Observation, Presence};

/// Where a detector leaves what it learns.
#[derive(Debug, Clone)]
pub struct Sink {
    state: Arc<TrackerState>,
    name: &'static str,
}

impl Sink {
    pub(crate) fn new(state: Arc<TrackerState>, name: &'static str) -> Self {
        Self { state, name }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn stop(&self) -> CancellationToken {
        self.state.stop.clone()
    }

    pub(crate) fn state(&self) -> &Arc<TrackerState> {
        &self.state
    }

    /// The tracker's configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// The mount that is tracked.
    #[must_use]
    pub fn mount(&self) -> &Mount {
        &self.state.mount
    }

    /// Marks the beginning of an observation that takes time. To be drawn before the question is
    /// asked, so that an answer never outranks what happened while it was on its way.
    #[must_use]
    pub fn next_seq(&self) -> ObservationSeq {
        self.state.next_seq()
    }

    /// Reports something that is true now. The role has changed when this returns, if it changes.
    pub fn report(&self, observation: Observation) {
        self.report_at(self.next_seq(), observation);
    }

    /// Reports something that was true when the seq was drawn.
    pub fn report_at(&self, at: ObservationSeq, observation: Observation) {
        self.state.report(at, observation);
    }

    /// Notes for the status that the detector works.
    pub fn working(&self) {
        self.note(DetectorState::Working);
    }

    /// Notes for the status why the detector does not work, and logs it the first time.
    pub fn failing(&self, reason: impl ToString) {
        self.note(DetectorState::Failing(reason.to_string()));
    }

    fn note(&self, state: DetectorState) {
        let before = lock(&self.state.detectors).insert(self.name, state.clone());
        if let DetectorState::Failing(reason) = &state
            && !matches!(before, Some(DetectorState::Failing(_)))
            && *self.state.presence.borrow() != Presence::NeverSeen
        {
            tracing::warn!(detector = self.name, reason, "detector fails, trying on");
        }
        self.state.reported.notify_one();
    }

    /// Waits until LiteFS has been seen: before that there is no LiteFS to ask.
    pub(crate) async fn litefs_seen(&self) {
        let mut presence = self.state.presence.subscribe();
        // The sender lives in `state`, which this sink holds.
        let _ = presence.wait_for(|presence| *presence != Presence::NeverSeen).await;
    }
}
