//! From what is known to what this node is: the one place that decides.

use crate::evidence::Evidence;
use crate::mount::Presence;
use crate::{Claim, Role};

/// The role that the evidence proves. Pure and total.
///
/// 1. Where LiteFS was never seen, the node stands alone. Where it was and is gone, nothing can be
///    known.
/// 2. The freshest word of an authoritative source (event stream, `/info`) counts. A rejected write
///    that is fresher refutes its "primary".
/// 3. `.primary` naming a node counts if it is fresher than that. Its absence proves nothing at
///    all.
/// 4. A source that names this node as the primary of this node knows of none: LiteFS does so
///    after a handoff.
/// 5. Without proof the role is unknown.
pub(crate) fn merge(evidence: &Evidence) -> Role {
    match evidence.presence() {
        Presence::NeverSeen => return Role::Standalone,
        Presence::Lost => return Role::Unknown,
        Presence::Here => {}
    }
    let refuted = |at| evidence.row_rejected.is_some_and(|rejected| rejected > at);
    let authority =
        evidence.authority().filter(|claim| !(claim.value == Claim::Primary && refuted(claim.at)));
    let file = evidence.file_claim();
    let freshest = match (authority, file) {
        (Some(authority), Some(file)) if file.at < authority.at => Some(authority),
        (_, Some(file)) => Some(file),
        (authority, None) => authority,
    };
    freshest.map_or(Role::Unknown, |claim| role_of(claim.value))
}

fn role_of(claim: Claim) -> Role {
    match claim {
        Claim::Primary => Role::Primary,
        Claim::Replica(primary) => Role::Replica { primary },
        Claim::NoPrimary => Role::Unknown,
    }
}

#[cfg(test)]
mod tests;
