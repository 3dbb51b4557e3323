//! Whether LiteFS is present.

use std::time::Duration;

use futures::FutureExt;

use litefs_core::{Detectors, Presence, Role, StartError, Tracker};

use crate::fake::{FakeLiteFs, becomes, replica, soon};

#[tokio::test]
async fn d5_a_plain_directory_is_standalone() {
    let litefs = FakeLiteFs::without_mount().await;
    let tracker = litefs.track(litefs.config_for("missing/app.db")).await;
    assert_eq!(tracker.role(), Role::Standalone);
    let plain = litefs.track(litefs.config()).await;
    assert_eq!(plain.role(), Role::Standalone);
    plain.shutdown();
    assert_eq!(plain.role(), Role::Standalone);
}

#[tokio::test]
async fn d5_a_lost_mount_is_unknown_until_it_returns() {
    let litefs = FakeLiteFs::without_mount().await;
    let mount = litefs.path().join("mount");
    let put = |primary: &str| {
        std::fs::create_dir(&mount).unwrap();
        std::fs::write(mount.join(".primary"), primary).unwrap();
    };
    put("node-a\n");
    let tracker = litefs.track(litefs.config_for("mount/app.db")).await;
    assert_eq!(tracker.role(), replica("node-a"));
    std::fs::remove_dir_all(&mount).unwrap();
    becomes(&tracker, Role::Unknown).await;

    // A handle that is started meanwhile: the process remembers that this was LiteFS, even if the
    // directory is there again as a plain one.
    let late = litefs.track(litefs.config_for("mount/late.db")).await;
    assert_eq!(late.role(), Role::Unknown);
    std::fs::create_dir(&mount).unwrap();
    let later = litefs.track(litefs.config_for("mount/later.db")).await;
    assert_eq!(later.role(), Role::Unknown);
    std::fs::remove_dir(&mount).unwrap();

    put("node-b\n");
    for tracker in [tracker, late, later] {
        becomes(&tracker, replica("node-b")).await;
    }
}

#[tokio::test]
async fn any_detector_notices_litefs_that_appears_later() {
    let litefs = FakeLiteFs::without_mount().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let events_only = litefs.config().detectors(Detectors { events: true, ..Detectors::NONE });
    let tracker = litefs.track(events_only).await;
    assert_eq!(tracker.role(), Role::Standalone);
    assert_eq!(litefs.counts().events, 0, "no server was there");
    litefs.write(".lag", "+000000000\n");
    becomes(&tracker, Role::Primary).await;
}

#[tokio::test]
async fn d6_missing_required_litefs_fails_the_start_with_advice() {
    let mut litefs = FakeLiteFs::without_mount().await;
    litefs.info_says(true, "node-a");
    let start =
        |litefs: &FakeLiteFs| Tracker::start(litefs.config().require_litefs(true).build().unwrap());
    let error = start(&litefs).await.expect_err("there is no LiteFS at this mount");
    assert!(matches!(error, StartError::RequireLiteFs { .. }));
    let message = error.to_string();
    for part in [
        litefs.path().to_str().unwrap(),
        ".primary",
        "/info belongs to another mount",
        "litefs mount",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    litefs.refuse().await;
    let message = start(&litefs).await.expect_err("still none").to_string();
    assert!(message.contains("does not answer"), "{message}");
    litefs.write(".lag", "+000000000\n");
    assert!(start(&litefs).await.is_ok());
}

#[tokio::test]
async fn info_of_another_mount_is_ignored() {
    let litefs = FakeLiteFs::without_mount().await;
    litefs.info_says(true, "node-a");
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), Role::Standalone);
    tracker.confirm().await;
    assert_eq!(tracker.role(), Role::Standalone);
    assert_eq!(litefs.counts().events, 0);
}

#[tokio::test]
async fn info_and_events_of_another_data_directory_are_ignored() {
    let litefs = FakeLiteFs::start().await;
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("dbs")).unwrap();
    litefs.write("app.db", "");
    litefs.info_from(data.path().to_str().unwrap(), true, "node-x");
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config()).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    tracker.confirm().await;
    assert_eq!(tracker.role(), Role::Unknown);
    litefs.write(".primary", "node-a\n");
    becomes(&tracker, replica("node-a")).await;
    // As soon as it matches the mount it is used.
    litefs.remove(".primary");
    std::fs::create_dir(data.path().join("dbs/app.db")).unwrap();
    becomes(&tracker, Role::Primary).await;
}

#[tokio::test]
async fn info_that_names_the_mount_shows_litefs() {
    let litefs = FakeLiteFs::without_mount().await;
    litefs.info_from(litefs.path().to_str().unwrap(), true, "node-a");
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!(tracker.role(), Role::Primary);
    assert_eq!(tracker.status().litefs, Presence::Here);
}

#[tokio::test]
async fn the_status_is_complete_and_serialises() {
    let litefs = FakeLiteFs::start().await;
    litefs.write(".lag", "+000001500\n");
    litefs.write(".primary", "node-a\n");
    litefs.write("app.db", "");
    litefs.write("app.db-pos", "0000000000000006/c8d7f2c43a9c38cb\n");
    let tracker = litefs.track(litefs.config().node("me")).await;
    assert_eq!(tracker.lag(), Some(Duration::from_millis(1500)));
    tracker.read_position().unwrap();
    let failing = |tracker: &Tracker| {
        let answers_404 = |state: &litefs_core::DetectorState| {
            use litefs_core::DetectorState::Failing;
            matches!(state, Failing(reason) if reason == "status 404")
        };
        tracker.status().detectors.iter().all(|d| d.name != "events" || answers_404(&d.state))
    };
    assert!(failing(&tracker), "{:?}", tracker.status());
    let status = serde_json::to_value(tracker.status()).unwrap();
    assert_eq!(status["role"], "replica");
    assert_eq!(status["primary"], "node-a");
    assert_eq!(status["node"], "me");
    assert_eq!(status["lag_ms"], 1500);
    assert_eq!(status["litefs"], "here");
    assert_eq!(status["position"]["txid"], 6);
    assert_eq!(status["detectors"][0]["name"], "events");
    assert_eq!(status["detectors"][2]["state"], "working");
}

#[tokio::test]
async fn a_tracker_that_is_stopped_or_has_no_runtime_fails() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let config = litefs.config().build().unwrap();
    let outside = std::thread::spawn(move || Tracker::start(config).now_or_never());
    assert!(matches!(outside.join().unwrap(), Some(Err(StartError::NoRuntime))));

    let tracker = litefs.track(litefs.config()).await;
    becomes(&tracker, Role::Primary).await;
    let waiting = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.wait_for_role(|role| *role == Role::Standalone, soon()).await }
    });
    tokio::task::yield_now().await;
    tracker.shutdown();
    assert_eq!(waiting.await.unwrap(), Err(litefs_core::WaitError::Stopped));
    assert_eq!(tracker.role(), Role::Unknown, "the detectors have stopped");
    tracker.confirm().await;
    litefs.wait_counts(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_tasks() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config()).await;
    let clone = tracker.clone();
    litefs.wait_counts(|counts| counts.open == 1).await;
    drop(tracker);
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&clone, replica("node-a")).await;
    drop(clone);
    litefs.wait_counts(|counts| counts.open == 0).await;
}
