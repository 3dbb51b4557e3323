//! What a detector sees of the tracker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::evidence::ObservationSeq;
use crate::sync::lock;
use crate::tracker::{DetectorState, Shared};
use crate::{Config, Mount, Observation, Presence};

/// Where a detector leaves what it learns.
#[derive(Debug, Clone)]
pub struct Sink {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Sink {
    pub(crate) fn new(shared: Arc<Shared>, name: &'static str) -> Self {
        Self { shared, name }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn stop(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The tracker's configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The mount that is tracked.
    #[must_use]
    pub fn mount(&self) -> &Mount {
        &self.shared.mount
    }

    /// Marks the beginning of an observation that takes time. To be drawn before the question is asked, so that an answer
    /// never outranks what happened while it was on its way.
    #[must_use]
    pub fn ticket(&self) -> ObservationSeq {
        self.shared.ticket()
    }

    /// Reports something that is true now. The role has changed when this returns, if it changes.
    pub fn report(&self, observation: Observation) {
        self.report_at(self.ticket(), observation);
    }

    /// Reports something that was true when the ticket was drawn.
    pub fn report_at(&self, at: ObservationSeq, observation: Observation) {
        self.shared.report(at, observation);
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
        let before = lock(&self.shared.detectors).insert(self.name, state.clone());
        if let DetectorState::Failing(reason) = &state
            && !matches!(before, Some(DetectorState::Failing(_)))
            && *self.shared.presence.borrow() != Presence::NeverSeen
        {
            tracing::warn!(detector = self.name, reason, "detector fails, trying on");
        }
        self.shared.heard.notify_one();
    }

    /// Waits until LiteFS has been seen: until then there is nobody to ask.
    pub(crate) async fn litefs_seen(&self) {
        let mut presence = self.shared.presence.subscribe();
        // The sender lives in `shared`, which this sink holds.
        let _ = presence.wait_for(|presence| *presence != Presence::NeverSeen).await;
    }
}
