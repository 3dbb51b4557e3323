//! The tracker's own tasks. Each ends when the tracker stops.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::time::sleep_until;

use super::TrackerState;
use crate::Detector;
use crate::detect::Sink;
use crate::mount::Probe;

pub(super) fn spawn_all(state: &Arc<TrackerState>) {
    spawn(state, watch_mount(Arc::clone(state)));
    spawn(state, publish_held(Arc::clone(state)));
    spawn(state, follow_position(Arc::clone(state)));
}

fn spawn(state: &Arc<TrackerState>, task: impl Future<Output = ()> + Send + 'static) {
    let stop = state.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// Runs a detector. One that panics is reported as failing; the others go on.
pub(super) fn spawn_detector(detector: Box<dyn Detector>, sink: Sink) {
    let stop = sink.stop();
    let note = sink.clone();
    tokio::spawn(async move {
        let run = AssertUnwindSafe(detector.run(sink, stop)).catch_unwind();
        if run.await.is_err() {
            tracing::error!(detector = note.name(), "detector panicked");
            note.failing("it panicked");
        }
    });
}

/// Looks at the mount directory once.
pub(super) async fn probe_mount(state: &Arc<TrackerState>) {
    let number = state.mount_probe.begin();
    let mount = state.mount.clone();
    // A file of a hung LiteFS can block for good: never on a thread of the runtime.
    let probe = tokio::task::spawn_blocking(move || mount.probe()).await;
    state.record_probe(probe.unwrap_or(Probe::Unclear));
    state.mount_probe.finish(number, true);
}

/// Notices that LiteFS appears at, or vanishes from, the mount, whichever detectors are on.
async fn watch_mount(state: Arc<TrackerState>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(state.config.poll_interval()) => {}
            () = state.mount_probe.requested() => {}
        }
        probe_mount(&state).await;
    }
}

async fn publish_held(state: Arc<TrackerState>) {
    loop {
        let Some(due) = state.held_until() else {
            state.held.notified().await;
            continue;
        };
        // What is held may be dropped and held again meanwhile: then the timer finds nothing due
        // and asks again.
        sleep_until(due).await;
        state.publish_held();
    }
}

async fn follow_position(state: Arc<TrackerState>) {
    loop {
        let reader = Arc::clone(&state);
        let read = tokio::task::spawn_blocking(move || reader.positions.refresh(&reader.mount));
        if read.await.is_err() {
            tracing::error!("reading the position panicked");
        }
        state.positions.due(state.config.position_poll()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::{Claim, Config, Observation, Role};

    const HOLD: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3_600);

    fn replica(name: &str) -> Claim {
        Claim::Replica(name.parse().unwrap())
    }

    /// The tracker without its detectors: the test says what they would. Time is tokio's alone.
    fn tracker() -> Arc<TrackerState> {
        let config = Config::builder("/nowhere/app.db").debounce(HOLD).build().unwrap();
        let state = Arc::new(TrackerState::new(config));
        state.record_probe(Probe::Marker);
        spawn(&state, publish_held(Arc::clone(&state)));
        state
    }

    fn stream_says(state: &TrackerState, claim: Claim) {
        state.report(state.next_seq(), Observation::Stream(claim));
    }

    fn role(state: &TrackerState) -> Role {
        state.role.borrow().role.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_primary_that_stays_named_is_published_when_the_hold_is_over_and_not_before() {
        let state = tracker();
        stream_says(&state, replica("a"));
        stream_says(&state, Claim::NoPrimary);
        assert_eq!(role(&state), Role::Unknown, "a loss is published at once");
        stream_says(&state, replica("a"));
        let named = Instant::now();
        let mut roles = state.role.subscribe();
        sleep(HOLD / 2).await;
        // Another source says the same: that does not start the hold again.
        state.report(state.next_seq(), Observation::PrimaryFile(Some("a".parse().unwrap())));
        roles.wait_for(|state| state.role != Role::Unknown).await.unwrap();
        assert_eq!(named.elapsed(), HOLD);
        assert_eq!(role(&state).primary(), Some(&"a".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_primary_that_is_named_for_a_moment_each_second_is_never_published() {
        let state = tracker();
        stream_says(&state, replica("a"));
        stream_says(&state, Claim::NoPrimary);
        let epoch = state.role.borrow().epoch;
        for _ in 0..100 {
            stream_says(&state, replica("a"));
            sleep(HOLD / 2).await;
            stream_says(&state, Claim::NoPrimary);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((role(&state), state.role.borrow().epoch), (Role::Unknown, epoch));
        stream_says(&state, replica("b"));
        assert_eq!(role(&state).primary(), Some(&"b".parse().unwrap()), "another one is, at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mount_that_comes_or_goes_without_a_role_is_a_new_epoch() {
        let state = tracker();
        stream_says(&state, Claim::NoPrimary);
        let epoch = state.role.borrow().epoch;
        state.record_probe(Probe::Dead);
        assert_eq!((role(&state), state.stamp().epoch()), (Role::Unknown, epoch + 1));
        state.record_probe(Probe::Dead);
        assert_eq!(state.stamp().epoch(), epoch + 1, "once");
        state.record_probe(Probe::Marker);
        assert_eq!((role(&state), state.stamp().epoch()), (Role::Unknown, epoch + 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_is_dropped_when_the_tracker_stops() {
        let state = tracker();
        stream_says(&state, replica("a"));
        stream_says(&state, Claim::NoPrimary);
        stream_says(&state, replica("a"));
        state.shut_down();
        let mut roles = state.role.subscribe();
        let named = roles.wait_for(|state| state.role.primary().is_some());
        assert!(timeout(LONG, named).await.is_err());
    }
}
