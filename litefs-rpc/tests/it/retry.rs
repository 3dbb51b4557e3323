//! How often, and until when, the client retries. The tests run in tokio's paused time, which
//! advances only while no task can run: the durations are exact. The addresses are invalid, so that
//! no socket is opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use litefs_rpc::client::{
    CallError, Client, ClientConfig, ForwardError, Forwarded, Forwarder, PrimaryLocation,
    PrimaryLocator,
};
use litefs_rpc::wire::PrimaryHint;
use tokio::sync::watch;
use tokio::time::Instant;

/// A locator that returns what the test sets, and records when an address is rechecked.
struct FixedLocator {
    location: watch::Sender<PrimaryLocation>,
    rechecks: Arc<Mutex<Vec<Instant>>>,
}

impl PrimaryLocator for FixedLocator {
    fn location(&self) -> PrimaryLocation {
        self.location.borrow().clone()
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut location = self.location.subscribe();
            let _ = tokio::time::timeout_at(deadline, location.wait_for(|now| now != seen)).await;
        })
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        self.rechecks.lock().unwrap().push(Instant::now());
        Box::pin(async {})
    }
}

const MS: Duration = Duration::from_millis(1);
const PRIMARY_TIMEOUT: Duration = Duration::from_millis(700);

/// A primary whose address is invalid, so that connecting fails at once.
fn nowhere(node: &str) -> PrimaryLocation {
    PrimaryLocation::Elsewhere(PrimaryHint { node: node.into(), address: node.into() })
}

type Rechecks = Arc<Mutex<Vec<Instant>>>;

fn forwarder(location: PrimaryLocation) -> (Arc<Forwarder<FixedLocator>>, Rechecks) {
    let rechecks = Rechecks::default();
    let locator =
        FixedLocator { location: watch::Sender::new(location), rechecks: Arc::clone(&rechecks) };
    let client = Arc::new(Client::new(ClientConfig::new("app.db")));
    (Arc::new(Forwarder::new(client, locator, PRIMARY_TIMEOUT)), rechecks)
}

async fn forward(
    forwarder: &Forwarder<FixedLocator>,
    within: Duration,
) -> Result<Forwarded<()>, ForwardError> {
    forwarder.with_primary(Instant::now() + within, |_| async { Ok(()) }).await
}

#[tokio::test(start_paused = true)]
async fn m6_retries_back_off_and_never_pass_the_deadline() {
    let (forwarder, rechecks) = forwarder(nowhere("a"));
    let (start, within) = (Instant::now(), Duration::from_secs(5));
    let error = forward(&forwarder, within).await.unwrap_err();
    assert!(matches!(error, ForwardError::Call(CallError::Unreachable { .. })), "{error}");
    // Another attempt would be after the deadline, so the call returns without it.
    assert!(
        start.elapsed() <= within && start.elapsed() >= within - 500 * MS,
        "{:?}",
        start.elapsed()
    );
    let tries = rechecks.lock().unwrap();
    let mut expected = 20 * MS;
    for (one, next) in tries.iter().zip(tries.iter().skip(1)) {
        let pause = *next - *one;
        // Jitter shortens a pause by up to half, measured in whole milliseconds.
        assert!(
            pause + MS >= expected / 2 && pause <= expected + MS,
            "{pause:?} instead of {expected:?}"
        );
        expected = (expected * 2).min(500 * MS);
    }
    assert!((13..=26).contains(&tries.len()), "{}", tries.len());
}

#[tokio::test(start_paused = true)]
async fn m6_without_a_primary_the_shorter_timeout_applies() {
    for (within, waited) in [(5_000 * MS, PRIMARY_TIMEOUT), (300 * MS, 300 * MS)] {
        let (forwarder, rechecks) = forwarder(PrimaryLocation::Nowhere);
        let start = Instant::now();
        let error = forward(&forwarder, within).await.unwrap_err();
        assert_eq!(error, ForwardError::NoPrimary { waited });
        assert_eq!(start.elapsed(), waited);
        assert!(rechecks.lock().unwrap().is_empty(), "there was no address to recheck");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_primary_ends_the_pause() {
    for before in [PrimaryLocation::Nowhere, nowhere("a")] {
        let (forwarder, _) = forwarder(before.clone());
        let start = Instant::now();
        let waiting = {
            let forwarder = Arc::clone(&forwarder);
            tokio::spawn(async move { forward(&forwarder, Duration::from_secs(60)).await })
        };
        // Not a multiple of any pause.
        tokio::time::sleep(613 * MS).await;
        forwarder.locator().location.send_replace(PrimaryLocation::Here);
        assert_eq!(waiting.await.unwrap(), Ok(Forwarded::Here));
        assert_eq!(start.elapsed(), 613 * MS, "{before:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_primary_is_tried_without_the_old_pause() {
    let (forwarder, rechecks) = forwarder(nowhere("a"));
    let waiting = {
        let forwarder = Arc::clone(&forwarder);
        tokio::spawn(async move { forward(&forwarder, Duration::from_secs(2)).await })
    };
    tokio::time::sleep(1_500 * MS).await;
    let changed = Instant::now();
    forwarder.locator().location.send_replace(nowhere("b"));
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains('b'), "{error}");
    let tries = rechecks.lock().unwrap();
    assert_eq!(tries.iter().filter(|at| **at == changed).count(), 1, "{tries:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_contains_the_total_time_waited() {
    let (forwarder, _) = forwarder(nowhere("a"));
    let waiting = {
        let forwarder = Arc::clone(&forwarder);
        tokio::spawn(async move { forward(&forwarder, Duration::from_secs(5)).await })
    };
    tokio::time::sleep(3_000 * MS).await;
    forwarder.locator().location.send_replace(PrimaryLocation::Nowhere);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error, ForwardError::NoPrimary { waited: 3_000 * MS });
    assert_eq!(error.to_string(), "no primary is known: waited 3.0s in all for one");
}
