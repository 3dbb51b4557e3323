//! What a health endpoint shows.

use serde::Serialize;

use super::{DetectorStatus, TrackerState};
use crate::mount::Presence;
use crate::sync::lock;
use crate::{NodeName, Position, RoleKind};

/// A tracker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The role.
    pub role: RoleKind,
    /// See [`RoleState::epoch`](crate::RoleState::epoch).
    pub epoch: u64,
    /// The other node that is primary, where one is known.
    pub primary: Option<NodeName>,
    /// This node's own name, where it is known.
    pub node: Option<NodeName>,
    /// The last known position.
    pub position: Option<Position>,
    /// The age of the last sign of life from the primary, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Whether LiteFS is here.
    pub litefs: Presence,
    /// The detectors, by name.
    pub detectors: Vec<DetectorStatus>,
}

pub(crate) fn status(state: &TrackerState) -> Status {
    let role_state = state.role.borrow().clone();
    let lag = state.mount.read_lag().ok().flatten();
    let detectors = lock(&state.detectors);
    Status {
        role: role_state.role.kind(),
        epoch: role_state.epoch,
        primary: role_state.role.primary().cloned(),
        node: state.own_name(),
        position: state.positions.known(),
        lag_ms: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        litefs: *state.presence.borrow(),
        detectors: detectors
            .iter()
            .map(|(name, state)| DetectorStatus { name, state: state.clone() })
            .collect(),
    }
}
