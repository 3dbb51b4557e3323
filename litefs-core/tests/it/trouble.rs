//! Event streams that fail: refused, missing, cut, endless, silent.

use std::time::Duration;

use litefs_core::{Detectors, Role, Tracker};
use tokio::time::Instant;

use crate::fake::{Counts, FakeLiteFs, Reply, becomes, replica};

const FAST: Duration = Duration::from_millis(50);

/// Meanwhile `.primary` determines the role, and afterwards the stream is connected again.
async fn others_take_over_and_it_recovers(litefs: &FakeLiteFs, tracker: &Tracker) {
    litefs.write(".primary", "node-a\n");
    becomes(tracker, replica("node-a")).await;
    litefs.remove(".primary");
    becomes(tracker, Role::Unknown).await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-z"}"#);
    becomes(tracker, replica("node-z")).await;
}

/// Attempts are made one after the other, and no faster than the backoff allows.
async fn no_busy_loop(litefs: &FakeLiteFs) {
    let (begin, before) = (Instant::now(), litefs.counts().events);
    litefs.wait_counts(|counts: &Counts| counts.events >= before + 10).await;
    let attempts = litefs.counts().events - before;
    // Ten attempts beyond the first few pause for at least half of the longest backoff, 20 ms,
    // each.
    let least = Duration::from_millis(5) * u32::try_from(attempts).unwrap();
    assert!(begin.elapsed() >= least, "{attempts} attempts in {:?}", begin.elapsed());
}

#[tokio::test]
async fn d13_a_failing_event_stream_is_retried_with_pauses() {
    for failure in [Reply::Status(404), Reply::CloseAtOnce, Reply::Status(500)] {
        let litefs = FakeLiteFs::start().await;
        litefs.events(failure.clone());
        let tracker = litefs.track(litefs.config()).await;
        no_busy_loop(&litefs).await;
        others_take_over_and_it_recovers(&litefs, &tracker).await;
    }
}

#[tokio::test]
async fn d13_a_stream_with_one_event_does_not_reset_the_backoff() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config()).await;
    let (begin, before) = (Instant::now(), litefs.counts().events);
    for n in 1..=6 {
        litefs.wait_counts(|counts| counts.open == 1).await;
        litefs.cut();
        litefs.wait_counts(|counts| counts.events == before + n).await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(30), "no pause: {:?}", begin.elapsed());
    becomes(&tracker, Role::Primary).await;
}

#[tokio::test]
async fn d13_a_refused_connection_is_retried() {
    let mut litefs = FakeLiteFs::start().await;
    litefs.refuse().await;
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), Role::Unknown);
    litefs.accept().await;
    others_take_over_and_it_recovers(&litefs, &tracker).await;
    // When it disappears later, its claim is dropped.
    litefs.refuse().await;
    becomes(&tracker, Role::Unknown).await;
    litefs.accept().await;
    becomes(&tracker, replica("node-z")).await;
}

#[tokio::test]
async fn d13_a_half_open_stream_is_closed() {
    for half_open in [Reply::Silence, Reply::Body(String::new())] {
        let litefs = FakeLiteFs::start().await;
        litefs.events(half_open);
        let tracker = litefs.track(litefs.config().http_timeout(FAST)).await;
        litefs.wait_counts(|counts| counts.events >= 2).await;
        others_take_over_and_it_recovers(&litefs, &tracker).await;
    }
}

#[tokio::test]
async fn d13_an_endless_line_closes_the_stream() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config()).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-z"}"#);
    for _ in 0..9 {
        litefs.send(vec![b'x'; 128 * 1024]);
    }
    becomes(&tracker, replica("node-z")).await;
}

#[tokio::test]
async fn a_quiet_stream_is_confirmed_by_info() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    litefs.info_says(true, "node-a");
    let tracker = litefs.track(litefs.config().quiet_after(FAST)).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    let asked = litefs.counts().info;
    let before = tracker.stamp();
    litefs.wait_counts(|counts| counts.info >= asked + 3).await;
    assert_eq!(tracker.stamp(), before, "an idle cluster lost its primary");
    assert_eq!(litefs.counts().events, 1, "a confirmed stream was closed");
    // The stream is dead without an error; `/info` shows it.
    litefs.info_says(false, "node-b");
    becomes(&tracker, replica("node-b")).await;
}

#[tokio::test]
async fn an_unconfirmed_quiet_stream_reconnects_with_its_role() {
    let mut litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let events_only = Detectors { events: true, ..Detectors::NONE };
    let config = litefs.config().detectors(events_only).quiet_after(FAST).http_timeout(10 * FAST);
    let tracker = litefs.track(config).await;
    let before = tracker.stamp();
    litefs.wait_counts(|counts| counts.events >= 3).await;
    assert_eq!(tracker.stamp(), before, "an idle cluster lost its primary");
    litefs.events(Reply::Silence);
    becomes(&tracker, Role::Unknown).await;
    litefs.refuse().await;
}

#[tokio::test]
async fn info_is_polled_while_the_stream_is_down() {
    let litefs = FakeLiteFs::start().await;
    litefs.info_says(false, "node-a");
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), replica("node-a"));
    litefs.info_says(true, "node-b");
    becomes(&tracker, Role::Primary).await;
    // When `/info` no longer answers, its claim is dropped.
    litefs.info(Reply::Status(503));
    becomes(&tracker, Role::Unknown).await;
}
