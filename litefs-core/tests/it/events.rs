//! The event stream in all of its formats.

use std::time::Duration;

use litefs_core::{Detectors, Role, Tracker};

use crate::fake::{FakeLiteFs, becomes, replica};

const EVENTS_ONLY: Detectors = Detectors { events: true, ..Detectors::NONE };

async fn primary() -> (FakeLiteFs, Tracker) {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    // The mount is not polled meanwhile: every change comes from the stream.
    let config = litefs.config().detectors(EVENTS_ONLY).poll_interval(Duration::from_secs(600));
    let tracker = litefs.track(config).await;
    assert_eq!(tracker.role(), Role::Primary);
    (litefs, tracker)
}

#[tokio::test]
async fn d9_unknown_events_are_ignored() {
    let (litefs, tracker) = primary().await;
    litefs.send("{\"type\":\"heartbeat\"}\n{\"type\":\"x\",\"data\":{\"isPrimary\":false}}\n");
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, replica("node-a")).await;
    assert_eq!(litefs.counts().events, 1, "the stream was closed");
    // The first role and the one after the unknown events, without others in between.
    assert_eq!(tracker.subscribe().borrow().epoch, 2);
}

#[tokio::test]
async fn d10_malformed_json_is_skipped() {
    let (litefs, tracker) = primary().await;
    litefs.send("{nonsense\n\n\u{0}\n{\"type\":\"tx\"}\n");
    litefs.send(b"\xff\xfe\n");
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, replica("node-a")).await;
    assert_eq!(litefs.counts().events, 1, "the stream was closed");
}

#[tokio::test]
async fn many_malformed_events_log_one_warning() {
    let (warnings, _guard) = crate::warnings::count();
    let (litefs, tracker) = primary().await;
    let before = warnings.so_far();
    litefs.send("{nonsense\n".repeat(5_000));
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, replica("node-a")).await;
    assert_eq!(warnings.so_far() - before, 1);
}

#[tokio::test]
async fn d11_chunks_may_end_at_any_byte() {
    let (litefs, tracker) = primary().await;
    let event =
        "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false,\"hostname\":\"nœud-é\"}}\n";
    for byte in event.bytes() {
        litefs.send([byte]);
    }
    becomes(&tracker, replica("nœud-é")).await;
    litefs.send(format!(
        "{}{}",
        "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":true}}\n",
        "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false,\"hostname\":\"last\"}}\n",
    ));
    becomes(&tracker, replica("last")).await;
    assert_eq!(tracker.subscribe().borrow().epoch, 4, "one of two events in one chunk was missed");
}

#[tokio::test]
async fn d12_server_sent_events_work_as_well() {
    let litefs = FakeLiteFs::start().await;
    litefs.content_type("text/event-stream; charset=utf-8");
    litefs.events(crate::fake::Reply::Body(
        ": hello\n\nevent: init\ndata: {\"type\":\"init\",\n\
         data: \"data\":{\"isPrimary\":true}}\n\n"
            .to_owned(),
    ));
    let tracker = litefs.track(litefs.config().detectors(EVENTS_ONLY)).await;
    assert_eq!(tracker.role(), Role::Primary);
    let event = "data: {\"type\":\"primaryChange\",\"data\":\
                 {\"isPrimary\":false,\"hostname\":\"nœud\"}}\r\n\r\n";
    for byte in event.bytes() {
        litefs.send([byte]);
    }
    becomes(&tracker, replica("nœud")).await;
    assert_eq!(litefs.counts().events, 1);
}

#[tokio::test]
async fn a_brief_return_to_a_dead_primary_is_not_published() {
    let (litefs, tracker) = primary().await;
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"dead"}"#);
    becomes(&tracker, replica("dead")).await;
    litefs.primary_change(r#"{"isPrimary":false}"#);
    becomes(&tracker, Role::Unknown).await;
    let lost = tracker.stamp();
    for _ in 0..20 {
        litefs.send(format!(
            "{}{}",
            "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false,\"hostname\":\"dead\"}}\n",
            "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false}}\n",
        ));
    }
    // The position follows the same stream: once it has moved, the role changes are processed.
    litefs.tx("app.db", "0000000000000009/00000000000000aa");
    tracker.wait_for_txid(litefs_core::Txid::new(9), crate::fake::soon()).await.unwrap();
    assert_eq!(tracker.stamp(), lost);
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"dead"}"#);
    becomes(&tracker, replica("dead")).await;
}
