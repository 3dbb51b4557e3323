//! Sessions: transactions that a client holds open on the server.

use std::time::Duration;

use litefs_core::{Checksum, Position, Txid};
use litefs_rpc::Limits;
use litefs_rpc::client::{CallError, Fate};
use litefs_rpc::wire::{Begin, ServerError};
use tokio::time::Instant;

use crate::support::*;

#[tokio::test]
async fn x6_idle_and_total_limits_roll_a_session_back() {
    for (idle, total, word) in [(50, 5_000, "idle"), (5_000, 50, "open")] {
        let test = TestServer::start(
            |config| {
                config.limits.session_idle = Duration::from_millis(idle);
                config.limits.session_total = Duration::from_millis(total);
            },
            counting(),
        )
        .await;
        let link = client().connect(&test.address()).await.unwrap();
        let (session, _) = link.begin(begin(), soon()).await.unwrap();
        test.wait_for_rollback().await;
        let error = link.step(session, statement("INSERT"), soon()).await.unwrap_err();
        let CallError::Refused(ServerError::SessionLost { reason }) = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn x7_a_lost_connection_rolls_its_session_back_at_once() {
    let test = TestServer::start(|_| {}, counting()).await;
    let dying = client();
    let link = dying.connect(&test.address()).await.unwrap();
    link.begin(begin(), soon()).await.unwrap();
    let started = Instant::now();
    dying.disconnect();
    test.wait_for_rollback().await;
    assert!(started.elapsed() < Limits::default().session_idle / 2, "it waited for the idle limit");
}

#[tokio::test]
async fn x8_a_demotion_rolls_open_sessions_back_at_once() {
    let test = TestServer::start(|_| {}, counting()).await;
    let link = client().connect(&test.address()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    let started = Instant::now();
    test.role_guard.demote();
    test.wait_for_rollback().await;
    assert!(started.elapsed() < Limits::default().session_idle / 2, "it waited for the idle limit");
    let error = link.finish(session, true, soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::NotApplied, "{error}");
}

#[tokio::test]
async fn a_session_belongs_to_the_connection_that_opened_it() {
    let test = TestServer::start(|_| {}, counting()).await;
    let (owner, thief) = (client(), client());
    let link = owner.connect(&test.address()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    let stolen = thief
        .connect(&test.address())
        .await
        .unwrap()
        .finish(session, true, soon())
        .await
        .unwrap_err();
    assert!(matches!(stolen, CallError::Refused(ServerError::SessionLost { .. })), "{stolen:?}");
    assert!(link.finish(session, true, soon()).await.is_ok());
}

#[tokio::test]
async fn a_stale_snapshot_is_refused_and_its_lock_released() {
    let test = TestServer::start(|_| {}, counting()).await;
    let link = client().connect(&test.address()).await.unwrap();
    let old = Position { txid: Txid::new(99), checksum: Checksum::new(9) };
    let error = link.begin(Begin { expected: Some(old), ..begin() }, soon()).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(ServerError::SnapshotMoved { .. })), "{error:?}");
    assert!(link.write(request("INSERT"), soon()).await.is_ok());
}
