//! Decides what a failure means, given this node's role and mount.

use litefs_core::RoleStamp;

use super::role_guard::RoleGuard;
use crate::diagnosis::{Diagnosis, NodeState};
use crate::wire::ServerError;

/// What a failure means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// This node is not the primary any more, or its mount is gone. Nothing is applied.
    Gone,
    /// The error to answer with.
    Refused(ServerError),
}

impl Verdict {
    /// Must be called after [`RoleGuard::confirm`] for a refusal that is [suspicious].
    ///
    /// [suspicious]: crate::diagnosis::Symptom::is_suspicious
    pub(super) fn of(refusal: ServerError, role_guard: &dyn RoleGuard, stamp: RoleStamp) -> Self {
        let state =
            NodeState { mount_served: role_guard.is_mounted(), role_held: role_guard.holds(stamp) };
        let diagnosis = refusal.symptom().diagnose(state);
        let name = || role_guard.node().unwrap_or_else(|| "(unnamed)".into());
        Self::Refused(match diagnosis {
            Diagnosis::Demoted | Diagnosis::MountLost => return Self::Gone,
            Diagnosis::DiskFull => {
                ServerError::DiskFull { node: name(), reason: refusal.to_string() }
            }
            Diagnosis::Io => ServerError::Io { node: name(), reason: refusal.to_string() },
            Diagnosis::Statement | Diagnosis::Busy => refusal.on(name),
        })
    }

    /// The error to answer with: `gone` if this node cannot decide.
    pub(super) fn or(self, gone: impl FnOnce() -> ServerError) -> ServerError {
        match self {
            Self::Gone => gone(),
            Self::Refused(refusal) => refusal,
        }
    }
}
