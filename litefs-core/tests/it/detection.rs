//! The role that each source determines.

use std::time::Duration;

use litefs_core::{Detectors, NodeName, Observation, Role};

use crate::fake::{FakeLiteFs, Reply, becomes, replica};

const FILE_ONLY: Detectors = Detectors { primary_file: true, ..Detectors::NONE };

#[tokio::test]
async fn d1_a_primary_file_makes_the_node_a_replica_of_its_name() {
    let litefs = FakeLiteFs::start().await;
    litefs.write(".primary", "node-a\n");
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), replica("node-a"));
}

#[tokio::test]
async fn d2_without_a_primary_file_info_makes_the_node_primary() {
    let litefs = FakeLiteFs::start().await;
    litefs.info_says(true, "node-a");
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), Role::Primary);
    assert_eq!(tracker.own_name(), Some("node-a".parse().unwrap()));
}

#[tokio::test]
async fn d3_without_any_source_the_role_is_unknown() {
    let litefs = FakeLiteFs::start().await;
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), Role::Unknown);
    litefs.info_says(false, "");
    tracker.confirm().await;
    assert_eq!(tracker.role(), Role::Unknown);
}

#[tokio::test]
async fn d4_the_role_follows_the_primary_file() {
    let litefs = FakeLiteFs::start().await;
    let tracker = litefs.track(litefs.config().detectors(FILE_ONLY)).await;
    assert_eq!(tracker.role(), Role::Unknown);
    for primary in ["node-a", "node-a", "node-b"] {
        litefs.write(".primary", &format!("{primary}\n"));
        becomes(&tracker, replica(primary)).await;
        litefs.remove(".primary");
        becomes(&tracker, Role::Unknown).await;
    }
}

#[tokio::test]
async fn d4_file_system_notifications_come_before_the_poll() {
    let litefs = FakeLiteFs::start().await;
    // Long intervals, the debounce included: it decides how soon a change is checked again.
    let long = Duration::from_secs(600);
    let slow = litefs.config().detectors(FILE_ONLY).poll_interval(long).debounce(long);
    let tracker = litefs.track(slow).await;
    // The detector's task sets up the watch: its first read finds earlier changes.
    litefs.write(".primary", "node-a\n");
    becomes(&tracker, replica("node-a")).await;
    litefs.write(".primary", "node-b\n");
    becomes(&tracker, replica("node-b")).await;
}

#[tokio::test]
async fn d7_the_event_stream_alone_determines_every_role() {
    let litefs = FakeLiteFs::start().await;
    let events_only = Detectors { events: true, ..Detectors::NONE };
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config().detectors(events_only)).await;
    assert_eq!(tracker.role(), Role::Primary, "init, true");
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, replica("node-a")).await;
    litefs.primary_change(r#"{"isPrimary":true}"#);
    becomes(&tracker, Role::Primary).await;
    litefs.primary_change(r#"{"isPrimary":false}"#);
    becomes(&tracker, Role::Unknown).await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-b"}"#);
    litefs.cut();
    becomes(&tracker, replica("node-b")).await;
}

#[tokio::test]
async fn d14_a_primary_may_have_a_port_or_no_name() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-a:4000"}"#);
    let tracker = litefs.track(litefs.config().rpc_port(9)).await;
    becomes(&tracker, replica("node-a:4000")).await;
    let (with, without): (NodeName, NodeName) =
        ("node-a:4000".parse().unwrap(), "node-b".parse().unwrap());
    assert_eq!(tracker.rpc_address(&with), "node-a:4000");
    assert_eq!(tracker.rpc_address(&without), "node-b:9");
    tracker.learn_address(&without, "10.0.0.2:7");
    assert_eq!(tracker.rpc_address(&without), "10.0.0.2:7");
    litefs.primary_change(r#"{"isPrimary":false}"#);
    becomes(&tracker, Role::Unknown).await;
}

#[tokio::test]
async fn d15_a_node_that_names_itself_as_primary_has_no_primary() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"me"}"#);
    litefs.info_says(false, "me");
    litefs.write(".primary", "me\n");
    let tracker = litefs.track(litefs.config().node("me")).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    assert_eq!(tracker.role(), Role::Unknown);
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-b"}"#);
    litefs.write(".primary", "node-b\n");
    becomes(&tracker, replica("node-b")).await;
}

#[tokio::test]
async fn a_node_learns_its_own_name_when_it_is_promoted() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-b"}"#);
    litefs.info_says(false, "node-b");
    let tracker = litefs.track(litefs.config()).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    assert_eq!(tracker.own_name(), None);
    litefs.info_says(true, "node-a");
    litefs.primary_change(r#"{"isPrimary":true}"#);
    becomes(&tracker, Role::Primary).await;
    tracker.confirm().await;
    assert_eq!(tracker.own_name(), Some("node-a".parse().unwrap()));
    // From now on it knows its own name.
    litefs.info_says(false, "node-a");
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, Role::Unknown).await;
}

#[tokio::test]
async fn d16_two_databases_are_tracked_independently() {
    let (a, b) = (FakeLiteFs::start().await, FakeLiteFs::start().await);
    a.info_says(true, "node-a");
    b.write(".primary", "node-x\n");
    for (name, position) in [("one.db", "0000000000000001"), ("two.db", "0000000000000002")] {
        a.write(name, "");
        a.write(&format!("{name}-pos"), &format!("{position}/00000000000000aa\n"));
    }
    let one = a.track(a.config_for("one.db")).await;
    let two = a.track(a.config_for("two.db")).await;
    let other = b.track(b.config()).await;
    assert_eq!(
        (one.role(), two.role(), other.role()),
        (Role::Primary, Role::Primary, replica("node-x"))
    );
    assert_eq!(one.read_position().unwrap().txid.get(), 1);
    assert_eq!(two.read_position().unwrap().txid.get(), 2);
    assert!(other.read_position().is_err());
    one.shutdown();
    assert_eq!((one.role(), two.role()), (Role::Unknown, Role::Primary));
}

#[tokio::test]
async fn d18_a_disabled_detector_is_not_used() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    litefs.info_says(false, "node-i");
    litefs.write(".primary", "node-f\n");
    let only = |detectors| litefs.config().detectors(detectors);
    let events = litefs.track(only(Detectors { events: true, ..Detectors::NONE })).await;
    assert_eq!(events.role(), Role::Primary);
    assert_eq!(litefs.counts().info, 0);
    events.confirm().await;
    drop(events);
    let connected = litefs.wait_counts(|counts| counts.open == 0).await.events;

    let file = litefs.track(only(FILE_ONLY)).await;
    assert_eq!(file.role(), replica("node-f"));
    let info = litefs.track(only(Detectors { info: true, ..Detectors::NONE })).await;
    assert_eq!(info.role(), replica("node-i"));
    info.confirm().await;
    assert_eq!(litefs.counts().events, connected);
    let none = litefs.track(only(Detectors { row: true, ..Detectors::NONE })).await;
    assert_eq!(none.role(), Role::Unknown);
    let off: Vec<_> = info.status().detectors.iter().map(|d| format!("{:?}", d.state)).collect();
    assert_eq!(off, ["Off", "Working", "Off"]);
}

#[tokio::test]
async fn a_removed_primary_file_triggers_an_info_request() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    litefs.info(Reply::Silence);
    litefs.write(".primary", "node-a\n");
    let tracker = litefs.track(litefs.config().http_timeout(Duration::from_millis(500))).await;
    becomes(&tracker, replica("node-a")).await;
    // One request at the start and one for the stream; there is no further reason for one.
    litefs.wait_counts(|counts| counts.info >= 2).await;
    // The node is promoted. The stream has not reported it, `/info` has.
    litefs.info_says(true, "node-b");
    litefs.remove(".primary");
    becomes(&tracker, Role::Primary).await;
}

#[tokio::test]
async fn rejected_writes_and_peer_reports_trigger_info_requests() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    litefs.info_says(true, "node-a");
    let tracker = litefs.track(litefs.config()).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    tracker.confirm().await;
    let peer: NodeName = "node-b".parse().unwrap();
    for report in [
        Observation::PeerUnreachable { node: peer.clone() },
        Observation::PeerNotPrimary { node: peer.clone(), hint: None },
    ] {
        let (before, asked) = (tracker.stamp(), litefs.counts().info);
        tracker.observe(report);
        assert_eq!(tracker.stamp(), before);
        litefs.wait_counts(|counts| counts.info > asked).await;
    }
    litefs.info_says(false, "node-b");
    tracker.observe(Observation::RowWriteRejected);
    assert_ne!(tracker.role(), Role::Primary, "a rejected write disproves it at once");
    becomes(&tracker, replica("node-b")).await;
}
