//! Waits until the local file has what a read must see.

use std::time::Instant;

use litefs_core::{Role, Tracker};

use super::primary::Primary;
use crate::consistency::Marks;

/// Whether the local file has what a read must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// The local file has it. The marks are those that remain in the current history.
    Here(Marks),
    /// Not in time.
    Behind,
}

/// Waits until the local file contains all of `marks`. Runs on the I/O thread, while no read
/// transaction of the caller is open: LiteFS could not apply what is waited for.
pub(crate) async fn make_visible(
    tracker: Tracker,
    primary: Primary,
    mut marks: Marks,
    deadline: Instant,
) -> Visibility {
    loop {
        let mut roles = tracker.subscribe();
        let role = roles.borrow_and_update().role.clone();
        let name = match role {
            // This node's own file is the current history.
            Role::Standalone | Role::Primary => return Visibility::Here(Marks::default()),
            Role::Replica { primary } => Some(primary),
            Role::Unknown => None,
        };
        // If the role changes meanwhile, so does what to wait for.
        let seen = async {
            // After a change of primary: ask the new one how far its history goes.
            if let Some(name) = &name
                && !marks.all_of(name.as_ref())
                && let Ok(Some(position)) = primary.position(deadline).await
            {
                marks.rebase(name.as_ref(), position);
            }
            tracker.wait_for_txid(marks.highest(), deadline.into()).await
        };
        let seen = tokio::select! {
            seen = seen => seen,
            _ = roles.changed() => continue,
        };
        return match seen {
            Ok(_) => Visibility::Here(marks),
            // At the deadline, or because the tracker was shut down.
            Err(_) => Visibility::Behind,
        };
    }
}
