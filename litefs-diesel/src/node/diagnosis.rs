//! What an error of a statement on this node's own file means: the statement, the role, the mount
//! or the disk.

use diesel::result::Error;
use litefs_core::Presence;
use litefs_rpc::diagnosis::{Diagnosis, NodeState, Symptom};

use super::Node;
use super::own_name::name_or_host;
use crate::error::{locked, mount_lost};
use crate::failure::Failure;

fn symptom(error: &Error) -> Symptom {
    match error {
        Error::DatabaseError(_, information) if Failure::of(error).is_none() => {
            Symptom::of(information.message())
        }
        _ => Symptom::Statement,
    }
}

/// Diagnoses an error. If a role or a mount may explain it, this asks LiteFS and blocks.
pub(crate) fn diagnose(node: &Node, error: &Error, role_held: impl FnOnce() -> bool) -> Diagnosis {
    let symptom = symptom(error);
    if symptom.is_suspicious() {
        let tracker = node.tracker.clone();
        node.io.wait(async move { tracker.confirm().await });
    }
    let mount_served = node.tracker.presence() != Presence::Lost;
    symptom.diagnose(NodeState { mount_served, role_held: role_held() })
}

/// The error of a file that cannot be read or written.
pub(crate) fn storage(node: &Node, failure: Failure, error: &Error) -> Error {
    let name = name_or_host(&node.tracker);
    let cause = match failure {
        Failure::DiskFull => "its disk is full",
        _ => "its disk may be full or broken",
    };
    failure.error(format!("{error}: node {name} cannot use its file, {cause}; nothing was applied"))
}

/// The error of a read, or of a statement after which nothing can be applied.
#[cold]
pub(crate) fn explained(node: &Node, error: Error) -> Error {
    match diagnose(node, &error, || true) {
        Diagnosis::Statement | Diagnosis::Demoted => error,
        Diagnosis::Busy => locked(error),
        Diagnosis::MountLost => mount_lost(),
        Diagnosis::DiskFull => storage(node, Failure::DiskFull, &error),
        Diagnosis::Io => storage(node, Failure::Io, &error),
    }
}
