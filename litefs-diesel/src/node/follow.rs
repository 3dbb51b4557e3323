//! Follows the primary with a long poll.
//!
//! Each replica reports its position to the primary. It learns the primary's position and the start
//! of its term, and whether the primary has been at the replica's position. The read throttle and
//! the loss detector depend on this.

use std::sync::Arc;
use std::time::{Duration, Instant};

use litefs_core::{NodeName, Position, Role, Tracker, Txid};
use litefs_rpc::client::{CallError, PrimaryLocation, PrimaryLocator};
use litefs_rpc::wire::{PrimaryReport, ReplicaReport, ServerError};
use tokio_util::sync::CancellationToken;

use super::locator::Forwarding;
use super::loss_detector::LossDetector;
use super::own_name::own_name;
use super::read_throttle::ReadThrottle;

/// The pause between two calls while reads run on this node.
const PAUSE_READING: Duration = Duration::from_millis(2);
/// The pause between two calls while no reads run on this node.
const PAUSE_IDLE: Duration = Duration::from_millis(25);
/// How long a call may take. The primary answers after a second at the latest.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Follows the primary until the tracker stops.
pub(crate) async fn follow(
    tracker: Tracker,
    forwarding: Arc<Forwarding>,
    read_throttle: Arc<ReadThrottle>,
    loss_detector: LossDetector,
    own: impl Fn() -> (String, Option<String>),
    stop: CancellationToken,
) {
    let mut roles = tracker.subscribe();
    let mut last = None;
    loop {
        let state = roles.borrow_and_update().clone();
        read_throttle.forget();
        loss_detector.ack_log.next_generation();
        match &state.role {
            Role::Primary | Role::Standalone => {
                last = None;
                read_throttle.set_same_history(true);
            }
            Role::Replica { primary } if last.as_ref() != Some(primary) => {
                last = Some(primary.clone());
                read_throttle.set_same_history(false);
            }
            Role::Replica { .. } | Role::Unknown => {}
        }
        let work = async {
            match &state.role {
                Role::Replica { primary } => {
                    follow_one(&tracker, &forwarding, &read_throttle, &loss_detector, primary, &own)
                        .await
                }
                Role::Primary => check_here(&tracker, &loss_detector, state.term_start).await,
                Role::Standalone | Role::Unknown => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
            () = work => {}
        }
    }
}

/// Checks the writes that were acknowledged before this node's own term, and those that are
/// acknowledged late.
async fn check_here(tracker: &Tracker, loss_detector: &LossDetector, term_start: Option<Position>) {
    let Some(term_start) = term_start.or_else(|| tracker.read_position().ok()) else { return };
    loop {
        let previous = loss_detector.ack_log.previous();
        if !previous.is_empty() {
            loss_detector.check(previous, &own_name(tracker).await, term_start).await;
        }
        loss_detector.ack_log.late().await;
    }
}

async fn follow_one(
    tracker: &Tracker,
    forwarding: &Forwarding,
    read_throttle: &ReadThrottle,
    loss_detector: &LossDetector,
    primary: &NodeName,
    own: &impl Fn() -> (String, Option<String>),
) {
    let mut term = None;
    loop {
        let (node, address) = own();
        let report = ReplicaReport { node, address, position: tracker.last_position() };
        // Read before the call: the primary has acknowledged these before it reports its position.
        let previous = loss_detector.ack_log.previous();
        // The primary answers once its position is beyond `known`. It answers at once while this
        // node waits to learn that its file is in the primary's history.
        let waits = previous.is_empty() && read_throttle.same_history();
        let known = if waits { read_throttle.known() } else { Txid::new(0) };
        let locator = forwarding.locator();
        // Read before the call, so that an address that is learned meanwhile is noticed.
        let seen = locator.location();
        let asked = async {
            let asked = ask(forwarding, &seen, report, known).await;
            asked.inspect_err(|_| read_throttle.forget())
        };
        let pause = match answer(locator, &seen, asked, connected(forwarding, &seen)).await {
            Some(followed) => {
                read_throttle.follow_to(followed.position.txid);
                // The file stays in the primary's history until the term ends.
                if followed.shared {
                    read_throttle.set_same_history(true);
                }
                // The primary may have lost its lease and got it back, unnoticed here.
                if term
                    .replace(followed.term_start)
                    .is_some_and(|before| before != followed.term_start)
                {
                    loss_detector.ack_log.next_generation();
                }
                if followed.shared
                    && !previous.is_empty()
                    && has_reached(tracker, followed.position).await
                {
                    loss_detector.check(previous, primary, followed.term_start).await;
                }
                match followed.awaited || !read_throttle.same_history() || read_throttle.take_read()
                {
                    true => PAUSE_READING,
                    false => PAUSE_IDLE,
                }
            }
            None => continue,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether the local file reaches the primary's position in time.
async fn has_reached(tracker: &Tracker, position: Position) -> bool {
    let deadline = tokio::time::Instant::now() + AFTER_FAILURE;
    tracker.wait_for_txid(position.txid, deadline).await.is_ok()
}

/// The answer of the call `asked` to the primary at `seen`. `None`: there is no answer, and the
/// call should be made again: the location has changed, a connection to the primary was opened
/// after none could be, or `AFTER_FAILURE` has passed.
async fn answer<T>(
    locator: &impl PrimaryLocator,
    seen: &PrimaryLocation,
    asked: impl Future<Output = Result<T, CallError>>,
    connected: impl Future<Output = ()>,
) -> Option<T> {
    let until = |time: Duration| locator.changed(seen, tokio::time::Instant::now() + time);
    let error = tokio::select! {
        asked = asked => match asked {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        },
        () = until(CALL_TIMEOUT) => return None,
    };
    tracing::debug!(%error, "cannot follow the primary");
    tokio::select! {
        () = until(AFTER_FAILURE) => {}
        () = connected, if matches!(error, CallError::Unreachable { .. }) => {}
    }
    None
}

/// Returns once there is a connection to the primary, for example that of a forwarded write.
async fn connected(forwarding: &Forwarding, seen: &PrimaryLocation) {
    match seen {
        PrimaryLocation::Elsewhere(primary) => {
            forwarding.client().connected(&primary.address).await
        }
        PrimaryLocation::Here | PrimaryLocation::Nowhere => std::future::pending().await,
    }
}

async fn ask(
    forwarding: &Forwarding,
    seen: &PrimaryLocation,
    report: ReplicaReport,
    known: Txid,
) -> Result<PrimaryReport, CallError> {
    let PrimaryLocation::Elsewhere(primary) = seen else {
        return Err(CallError::Refused(ServerError::NotPrimary { hint: None }));
    };
    let connection = forwarding.client().connect(&primary.address).await?;
    connection.follow(report, known, Instant::now() + CALL_TIMEOUT).await
}

#[cfg(test)]
mod tests;
