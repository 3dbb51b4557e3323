//! The tracker's own tasks. Each ends when the tracker stops.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::time::sleep_until;

use super::Shared;
use crate::Detector;
use crate::detect::Sink;
use crate::mount::Probe;

pub(super) fn spawn_all(shared: &Arc<Shared>) {
    spawn(shared, watch_mount(Arc::clone(shared)));
    spawn(shared, publish_held(Arc::clone(shared)));
    spawn(shared, follow_position(Arc::clone(shared)));
}

fn spawn(shared: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
    let stop = shared.stop.clone();
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
pub(super) async fn look_at_mount(shared: &Arc<Shared>) {
    let number = shared.looks.begin();
    let mount = shared.mount.clone();
    // A file of a hung LiteFS can block for good: never on a thread of the runtime.
    let probe = tokio::task::spawn_blocking(move || mount.probe()).await;
    shared.look(probe.unwrap_or(Probe::Unclear));
    shared.looks.finish(number, true);
}

/// Notices that LiteFS appears at, or vanishes from, the mount, whichever detectors are on.
async fn watch_mount(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.config.poll_interval()) => {}
            () = shared.looks.asked() => {}
        }
        look_at_mount(&shared).await;
    }
}

async fn publish_held(shared: Arc<Shared>) {
    loop {
        let Some(due) = shared.held_until() else {
            shared.held.notified().await;
            continue;
        };
        // What is held may be dropped and held again meanwhile: then the timer finds nothing due and asks again.
        sleep_until(due).await;
        shared.publish_held();
    }
}

async fn follow_position(shared: Arc<Shared>) {
    loop {
        let reader = Arc::clone(&shared);
        let read = tokio::task::spawn_blocking(move || reader.positions.refresh(&reader.mount));
        if read.await.is_err() {
            tracing::error!("reading the position panicked");
        }
        shared.positions.due(shared.config.position_poll()).await;
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
    fn tracker() -> Arc<Shared> {
        let config = Config::builder("/nowhere/app.db").debounce(HOLD).build().unwrap();
        let shared = Arc::new(Shared::new(config));
        shared.look(Probe::Marker);
        spawn(&shared, publish_held(Arc::clone(&shared)));
        shared
    }

    fn hear(shared: &Shared, claim: Claim) {
        shared.report(shared.ticket(), Observation::Stream(claim));
    }

    fn role(shared: &Shared) -> Role {
        shared.role.borrow().role.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_primary_that_stays_named_is_published_when_the_hold_is_over_and_not_before() {
        let shared = tracker();
        hear(&shared, replica("a"));
        hear(&shared, Claim::NoPrimary);
        assert_eq!(role(&shared), Role::Unknown, "a loss is published at once");
        hear(&shared, replica("a"));
        let named = Instant::now();
        let mut roles = shared.role.subscribe();
        sleep(HOLD / 2).await;
        // Another source says the same: that does not start the hold again.
        shared.report(shared.ticket(), Observation::PrimaryFile(Some("a".parse().unwrap())));
        roles.wait_for(|state| state.role != Role::Unknown).await.unwrap();
        assert_eq!(named.elapsed(), HOLD);
        assert_eq!(role(&shared).primary(), Some(&"a".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_primary_that_is_named_for_a_moment_each_second_is_never_published() {
        let shared = tracker();
        hear(&shared, replica("a"));
        hear(&shared, Claim::NoPrimary);
        let epoch = shared.role.borrow().epoch;
        for _ in 0..100 {
            hear(&shared, replica("a"));
            sleep(HOLD / 2).await;
            hear(&shared, Claim::NoPrimary);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((role(&shared), shared.role.borrow().epoch), (Role::Unknown, epoch));
        hear(&shared, replica("b"));
        assert_eq!(role(&shared).primary(), Some(&"b".parse().unwrap()), "another one is, at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mount_that_comes_or_goes_without_a_role_is_a_new_epoch() {
        let shared = tracker();
        hear(&shared, Claim::NoPrimary);
        let epoch = shared.role.borrow().epoch;
        shared.look(Probe::Dead);
        assert_eq!((role(&shared), shared.stamp().epoch()), (Role::Unknown, epoch + 1));
        shared.look(Probe::Dead);
        assert_eq!(shared.stamp().epoch(), epoch + 1, "once");
        shared.look(Probe::Marker);
        assert_eq!((role(&shared), shared.stamp().epoch()), (Role::Unknown, epoch + 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_is_dropped_when_the_tracker_stops() {
        let shared = tracker();
        hear(&shared, replica("a"));
        hear(&shared, Claim::NoPrimary);
        hear(&shared, replica("a"));
        shared.shut_down();
        let mut roles = shared.role.subscribe();
        let named = roles.wait_for(|state| state.role.primary().is_some());
        assert!(timeout(LONG, named).await.is_err());
    }
}
