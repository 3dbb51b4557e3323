//! Forwarding to the primary: hints, waiting for a primary, and lost replies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::future::BoxFuture;
use litefs_rpc::client::{
    CallError, Fate, ForwardError, Forwarded, Forwarder, PrimaryLocation, PrimaryLocator,
};
use litefs_rpc::wire::{Output, PrimaryHint, ServerError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::*;

/// A locator that returns what the test sets.
struct FixedLocator(watch::Sender<PrimaryLocation>);

impl PrimaryLocator for FixedLocator {
    fn location(&self) -> PrimaryLocation {
        self.0.borrow().clone()
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut location = self.0.subscribe();
            let _ = tokio::time::timeout_at(deadline, location.wait_for(|now| now != seen)).await;
        })
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn elsewhere(address: String) -> PrimaryLocation {
    PrimaryLocation::Elsewhere(PrimaryHint { node: "x".into(), address })
}

fn forwarder(location: PrimaryLocation, primary_timeout: Duration) -> Forwarder<FixedLocator> {
    Forwarder::new(Arc::new(client()), FixedLocator(watch::Sender::new(location)), primary_timeout)
}

#[tokio::test]
async fn f5_a_stale_client_follows_the_hint_and_writes_once() {
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let new = TestServer::start(
        |_| {},
        Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Output::Count(1))
        }),
    )
    .await;
    let old = TestServer::start(|_| {}, Box::new(|_| panic!("nothing must run"))).await;
    old.role_guard.demote();
    *old.role_guard.hint.lock().unwrap() =
        Some(PrimaryHint { node: "new".into(), address: new.address() });
    let forwarder = forwarder(elsewhere(old.address()), TIMEOUT);
    let reply = forwarder.write(request("INSERT"), None, Instant::now() + TIMEOUT).await.unwrap();
    assert!(matches!(reply, Forwarded::There(_)), "{reply:?}");
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nodes_that_name_each_other_do_not_loop_a_client() {
    let (one, two) =
        (TestServer::start(|_| {}, counting()).await, TestServer::start(|_| {}, counting()).await);
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.role_guard.demote();
        *node.role_guard.hint.lock().unwrap() =
            Some(PrimaryHint { node: "other".into(), address: other.address() });
    }
    let forwarder = forwarder(elsewhere(one.address()), TIMEOUT);
    let error = forwarder
        .write(request("INSERT"), None, Instant::now() + Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForwardError::Call(CallError::Refused(ServerError::NotPrimary { .. }))),
        "{error:?}"
    );
}

#[tokio::test]
async fn m6_a_write_waits_for_a_primary_up_to_the_limit() {
    let waiting = forwarder(PrimaryLocation::Nowhere, Duration::from_millis(100));
    let error = waiting.write(request("INSERT"), None, Instant::now() + TIMEOUT).await.unwrap_err();
    let ForwardError::NoPrimary { waited } = error else { panic!("{error:?}") };
    assert!(waited >= Duration::from_millis(100) && waited < TIMEOUT, "{waited:?}");

    let test = TestServer::start(|_| {}, counting()).await;
    let patient = forwarder(PrimaryLocation::Nowhere, TIMEOUT);
    let (reply, ()) =
        tokio::join!(patient.write(request("INSERT"), None, Instant::now() + TIMEOUT), async {
            tokio::task::yield_now().await;
            patient.locator().0.send_replace(elsewhere(test.address()));
        });
    assert!(matches!(reply, Ok(Forwarded::There(_))), "{reply:?}");

    let here = forwarder(PrimaryLocation::Here, TIMEOUT);
    assert_eq!(
        here.write(request("INSERT"), None, Instant::now() + TIMEOUT).await,
        Ok(Forwarded::Here)
    );
}

#[tokio::test]
async fn an_unreachable_server_is_retried_until_the_deadline() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forwarder = forwarder(elsewhere(nobody.to_string()), TIMEOUT);
    let error = forwarder
        .write(request("INSERT"), None, Instant::now() + Duration::from_millis(300))
        .await
        .unwrap_err();
    let ForwardError::Call(error) = error else { panic!("{error:?}") };
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    assert_eq!(forwarder.client().round_trips(), 0);
}

#[tokio::test]
async fn a_request_with_a_lost_reply_is_not_resent() {
    let (started, has_started) = mpsc::channel();
    let test = TestServer::start(
        |_| {},
        Box::new(move |_| {
            started.send(()).unwrap();
            std::thread::park_timeout(Duration::from_millis(200));
            Ok(Output::Count(1))
        }),
    )
    .await;
    let forwarder = forwarder(elsewhere(test.address()), TIMEOUT);
    let write = forwarder.write(request("INSERT"), None, Instant::now() + TIMEOUT);
    let cut = async {
        while has_started.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        forwarder.client().disconnect();
    };
    let (result, ()) = tokio::join!(write, cut);
    let Err(ForwardError::Call(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    assert_eq!(forwarder.client().round_trips(), 1);
}
