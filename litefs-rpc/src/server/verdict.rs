//! What to answer where work failed, by what has become of this node.

use litefs_core::RoleStamp;

use super::fence::Fence;
use crate::diagnosis::{Diagnosis, NodeState};
use crate::wire::Refusal;

/// What a failure came to.
pub(super) enum Verdict {
    /// This node is not the primary any more, or its mount is gone. Nothing is applied.
    Gone,
    /// The answer.
    Refused(Refusal),
}

impl Verdict {
    /// To be asked once the fence has [confirmed](Fence::confirm) what [looked suspicious].
    ///
    /// [looked suspicious]: crate::diagnosis::Symptom::is_suspicious
    pub(super) fn of(refusal: Refusal, fence: &dyn Fence, stamp: RoleStamp) -> Self {
        let state = NodeState { mount_served: fence.is_mounted(), role_held: fence.holds(stamp) };
        let diagnosis = refusal.symptom().diagnose(state);
        let name = || fence.node().unwrap_or_else(|| "(unnamed)".into());
        Self::Refused(match diagnosis {
            Diagnosis::Demoted | Diagnosis::MountLost => return Self::Gone,
            Diagnosis::DiskFull => Refusal::DiskFull { node: name(), reason: refusal.to_string() },
            Diagnosis::Io => Refusal::Io { node: name(), reason: refusal.to_string() },
            Diagnosis::Statement | Diagnosis::Busy => refusal,
        })
    }

    /// The answer, which is `gone` where this node cannot have the last word.
    pub(super) fn or(self, gone: impl FnOnce() -> Refusal) -> Refusal {
        match self {
            Self::Gone => gone(),
            Self::Refused(refusal) => refusal,
        }
    }
}
