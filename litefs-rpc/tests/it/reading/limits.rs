//! The limits on concurrent and waiting reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use litefs_rpc::Limits;
use litefs_rpc::client::CallError;
use litefs_rpc::wire::ServerError;

use crate::support::{client, soon};

use super::{TestServer, integer};

#[tokio::test]
async fn concurrent_and_waiting_reads_are_limited() {
    let meeting = Arc::new(Barrier::new(3));
    let (met, holding) = (Arc::clone(&meeting), Arc::new(AtomicBool::new(true)));
    let held = Arc::clone(&holding);
    let test = TestServer::start(
        |limits| limits.readers = 2,
        move || {
            // Block until two have arrived here; then hold them as long as the test requires.
            met.wait();
            while held.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(())
        },
    )
    .await;
    let test = Arc::new(test);
    let reads: Vec<_> = (0..2)
        .map(|_| {
            let (test, client) = (Arc::clone(&test), client());
            tokio::spawn(async move { test.ask(&client, "SELECT x FROM t", soon()).await })
        })
        .collect();
    tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
    let soon_over = Instant::now() + Duration::from_millis(50);
    let third = test.ask(&client(), "SELECT x FROM t", soon_over).await;
    assert!(
        matches!(third, Err(CallError::Refused(ServerError::TooLate) | CallError::Deadline { .. })),
        "{third:?}"
    );
    holding.store(false, Ordering::SeqCst);
    for read in reads {
        assert_eq!(integer(read.await.unwrap().unwrap()), 1);
    }
    assert_eq!(integer(test.ask(&client(), "SELECT x FROM t", soon()).await.unwrap()), 1);
    assert_eq!(test.opened.load(Ordering::SeqCst), 2, "the third reuses a connection");
}

#[tokio::test]
async fn reads_beyond_the_waiting_limit_are_refused() {
    let meeting = Arc::new(Barrier::new(2));
    let met = Arc::clone(&meeting);
    let few = |limits: &mut Limits| (limits.readers, limits.queue) = (1, 1);
    let test = TestServer::start(few, move || {
        // Once here, once forwarded.
        met.wait();
        met.wait();
        Ok(())
    })
    .await;
    let test = Arc::new(test);
    let first = tokio::spawn({
        let (test, client) = (Arc::clone(&test), client());
        async move { test.ask(&client, "SELECT x FROM t", soon()).await }
    });
    let meet = || {
        let meeting = Arc::clone(&meeting);
        tokio::task::spawn_blocking(move || meeting.wait())
    };
    meet().await.unwrap();
    let second = test.ask(&client(), "SELECT x FROM t", soon()).await;
    assert!(
        matches!(second, Err(CallError::Refused(ServerError::Overloaded { limit: 1 }))),
        "{second:?}"
    );
    meet().await.unwrap();
    assert_eq!(integer(first.await.unwrap().unwrap()), 1);
    assert_eq!(integer(test.ask(&client(), "SELECT x FROM t", soon()).await.unwrap()), 1);
}
