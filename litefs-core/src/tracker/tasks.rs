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
    let mount = shared.mount.clone();
    // A file of a hung LiteFS can block for good: never on a thread of the runtime.
    let probe = tokio::task::spawn_blocking(move || mount.probe()).await;
    shared.look(probe.unwrap_or(Probe::Unclear));
}

/// Notices that LiteFS appears at, or vanishes from, the mount, whichever detectors are on.
async fn watch_mount(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.config.poll_interval()).await;
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
