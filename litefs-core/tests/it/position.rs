//! The position of the database, and waiting for it.

use std::time::Duration;

use litefs_core::{Detectors, Position, PositionError, Role, Tracker, Txid, WaitError};
use tokio::time::Instant;

use crate::fake::{FakeLiteFs, becomes, replica, soon};

const ONE: &str = "0000000000000001/00000000000000aa";
const TWO: &str = "0000000000000002/00000000000000bb";
const NINE: &str = "0000000000000009/00000000000000cc";

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

fn write_position(litefs: &FakeLiteFs, position: &str) {
    litefs.write("app.db", "");
    litefs.write("app.db-pos", &format!("{position}\n"));
}

async fn known(tracker: &Tracker, wanted: &str) {
    let wanted = position(wanted);
    let mut positions = tracker.positions();
    let found =
        tokio::time::timeout_at(soon(), positions.wait_for(|known| *known == Some(wanted))).await;
    assert!(found.is_ok(), "expected {wanted}, still {:?}", tracker.last_position());
    assert_eq!(tracker.last_txid(), wanted.txid);
}

/// A tracker that learns of transactions from events alone: without a waiter it does not poll.
async fn follower() -> (FakeLiteFs, Tracker) {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":true}"#);
    let tracker = litefs.track(litefs.config().position_poll(Duration::from_secs(600))).await;
    litefs.wait_counts(|counts| counts.open == 1).await;
    (litefs, tracker)
}

#[tokio::test]
async fn d8_an_event_makes_the_tracker_read_the_position_file() {
    let (litefs, tracker) = follower().await;
    write_position(&litefs, TWO);
    litefs.tx("app.db", ONE);
    known(&tracker, TWO).await;
}

#[tokio::test]
async fn d8_without_a_readable_file_the_event_is_the_position() {
    let (litefs, tracker) = follower().await;
    litefs.tx("app.db", ONE);
    known(&tracker, ONE).await;
    // A position may also go back.
    litefs.tx("app.db", NINE);
    known(&tracker, NINE).await;
    litefs.tx("app.db", TWO);
    known(&tracker, TWO).await;
}

#[tokio::test]
async fn d8_transactions_of_other_databases_are_ignored() {
    let (litefs, tracker) = follower().await;
    litefs.tx("app.db", ONE);
    known(&tracker, ONE).await;
    litefs.tx("other.db", NINE);
    // The role follows the same stream: once it has changed, the transaction is processed.
    litefs.primary_change(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    becomes(&tracker, replica("node-a")).await;
    let short = Instant::now() + Duration::from_millis(50);
    assert_eq!(tracker.wait_for_txid(Txid::new(9), short).await, Err(WaitError::Deadline));
    assert_eq!(tracker.last_position(), Some(position(ONE)));
}

#[tokio::test]
async fn d8_a_new_stream_begins_with_reading_the_file() {
    let (litefs, tracker) = follower().await;
    write_position(&litefs, ONE);
    litefs.tx("app.db", ONE);
    known(&tracker, ONE).await;
    // No event reports this one.
    write_position(&litefs, TWO);
    litefs.cut();
    known(&tracker, TWO).await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_has_no_position() {
    let litefs = FakeLiteFs::start().await;
    let tracker = litefs.track(litefs.config()).await;
    assert_eq!((tracker.last_position(), tracker.last_txid()), (None, Txid::new(0)));
    assert!(matches!(tracker.read_position(), Err(PositionError::NoDatabase(_))));
    litefs.write("app.db", "");
    assert!(matches!(tracker.read_position(), Err(PositionError::Absent(_))));
    write_position(&litefs, ONE);
    assert_eq!(tracker.read_position().unwrap(), position(ONE));
    assert_eq!(tracker.last_position(), Some(position(ONE)));
}

#[tokio::test]
async fn a_primary_knows_the_start_of_its_term_after_writes() {
    let litefs = FakeLiteFs::start().await;
    litefs.events_begin(r#"{"isPrimary":false,"hostname":"node-a"}"#);
    write_position(&litefs, ONE);
    let tracker = litefs.track(litefs.config().position_poll(Duration::from_secs(600))).await;
    assert_eq!(tracker.subscribe().borrow().term_start, None, "a replica has no term");
    litefs.wait_counts(|counts| counts.open == 1).await;
    // No event reports this one.
    write_position(&litefs, TWO);
    litefs.primary_change(r#"{"isPrimary":true}"#);
    becomes(&tracker, Role::Primary).await;
    write_position(&litefs, NINE);
    litefs.tx("app.db", NINE);
    known(&tracker, NINE).await;
    assert_eq!(tracker.subscribe().borrow().term_start, Some(position(TWO)));
}

#[tokio::test]
async fn waiting_works_without_the_event_stream() {
    let litefs = FakeLiteFs::start().await;
    let config = litefs.config().detectors(Detectors { info: true, ..Detectors::NONE });
    let tracker = litefs.track(config).await;
    write_position(&litefs, ONE);
    assert_eq!(tracker.wait_for_txid(Txid::new(1), soon()).await, Ok(position(ONE)));
    let waiting = tracker.clone();
    let waiting = tokio::spawn(async move { waiting.wait_for_txid(Txid::new(2), soon()).await });
    tokio::task::yield_now().await;
    write_position(&litefs, NINE);
    assert_eq!(waiting.await.unwrap(), Ok(position(NINE)));
}

#[tokio::test]
async fn waiting_is_woken_by_events_alone() {
    let (litefs, tracker) = follower().await;
    write_position(&litefs, ONE);
    let waiting = tracker.clone();
    let waiting = tokio::spawn(async move { waiting.wait_for_txid(Txid::new(2), soon()).await });
    known(&tracker, ONE).await;
    write_position(&litefs, TWO);
    litefs.tx("app.db", TWO);
    assert_eq!(waiting.await.unwrap(), Ok(position(TWO)));
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_with_the_tracker() {
    let litefs = FakeLiteFs::start().await;
    write_position(&litefs, ONE);
    let tracker = litefs.track(litefs.config()).await;
    let deadline = Instant::now() + Duration::from_millis(20);
    assert_eq!(tracker.wait_for_txid(Txid::new(2), deadline).await, Err(WaitError::Deadline));
    let waiting = tracker.clone();
    let waiting = tokio::spawn(async move { waiting.wait_for_txid(Txid::new(2), soon()).await });
    tokio::task::yield_now().await;
    tracker.shutdown();
    assert_eq!(waiting.await.unwrap(), Err(WaitError::Stopped));
    assert_eq!(
        tracker.wait_for_txid(Txid::new(1), deadline).await,
        Ok(position(ONE)),
        "it is there already"
    );
}

#[tokio::test]
async fn a_lost_mount_has_no_position_despite_an_open_file() {
    let litefs = FakeLiteFs::start().await;
    write_position(&litefs, ONE);
    let tracker = litefs.track(litefs.config()).await;
    litefs.write(".primary", "node-a\n");
    becomes(&tracker, replica("node-a")).await;
    assert_eq!(tracker.read_position().unwrap(), position(ONE));
    for name in [".primary", ".lag", "app.db-pos", "app.db"] {
        litefs.remove(name);
    }
    // Faster than the descriptor expires: it is closed because the mount is gone.
    let begin = Instant::now();
    while tracker.read_position().is_ok() {
        assert!(begin.elapsed() < Duration::from_millis(900), "the old file was still read");
        tokio::task::yield_now().await;
    }
}
