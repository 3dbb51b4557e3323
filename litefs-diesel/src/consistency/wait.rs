//! Waiting until the local file has what a read must see.

use std::sync::Arc;

use litefs_core::{Role, Tracker};
use litefs_rpc::client::{Forwarded, Forwarder, PrimaryLocator};
use tokio::time::Instant;

use super::watermark::Marks;

/// Whether what must be seen can be seen here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// The local file has it. The marks are as they turned out, in terms of the living history.
    Here(Marks),
    /// Not in time.
    Behind,
}

/// Waits until the local file contains all of `marks`. Runs on the I/O thread, while no read
/// transaction of the caller is open: LiteFS could not apply what is waited for.
pub(crate) async fn make_visible<D: PrimaryLocator>(
    tracker: Tracker,
    forwarder: Arc<Forwarder<D>>,
    mut marks: Marks,
    deadline: Instant,
) -> Visibility {
    loop {
        let mut roles = tracker.subscribe();
        let role = roles.borrow_and_update().role.clone();
        let primary = match role {
            // This node's own file is the truth now.
            Role::Standalone | Role::Primary => return Visibility::Here(Marks::default()),
            Role::Replica { primary } => Some(primary),
            Role::Unknown => None,
        };
        // The role may change under the wait, and with it what is waited for.
        let seen = async {
            if let Some(primary) = &primary
                && !marks.all_of(primary.as_ref())
            {
                settle(&forwarder, &mut marks, primary.as_ref(), deadline).await;
            }
            tracker.wait_for_txid(marks.highest(), deadline).await
        };
        let seen = tokio::select! {
            seen = seen => seen,
            _ = roles.changed() => continue,
        };
        return match seen {
            Ok(_) => Visibility::Here(marks),
            // In time or never: the tracker may have been shut down.
            Err(_) => Visibility::Behind,
        };
    }
}

/// After a change of primary: asks the new one how far its history goes.
async fn settle<D: PrimaryLocator>(
    forwarder: &Forwarder<D>,
    marks: &mut Marks,
    primary: &str,
    deadline: Instant,
) {
    let asked = forwarder
        .with_primary(deadline, |link| async move { link.position(deadline.into_std()).await })
        .await;
    if let Ok(Forwarded::There(position)) = asked {
        marks.settle(primary, position);
    }
}
