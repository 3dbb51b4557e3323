//! When the primary is asked again, and when reads wait.

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use litefs_rpc::wire::PrimaryHint;

use super::*;

/// Says where the primary is, and wakes when that changes.
struct Told(watch::Sender<Standing>);

impl Directory for Told {
    fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    fn changed<'a>(&'a self, seen: &'a Standing, deadline: tokio::time::Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut told = self.0.subscribe();
            let change = told.wait_for(|standing| standing != seen);
            let _ = tokio::time::timeout_at(deadline, change).await;
        })
    }

    fn suspect(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

fn at(address: &str) -> Standing {
    Standing::Elsewhere(PrimaryHint { node: "a".into(), address: address.into() })
}

fn unreachable() -> Result<(), CallError> {
    Err(CallError::Unreachable { address: "a:20203".into(), reason: "no such host".into() })
}

/// The address is learned before the question, while it is under way, or after it has failed.
#[tokio::test(start_paused = true)]
async fn an_address_learned_at_any_time_is_asked_at_once() {
    let seen = at("a:20203");
    let told = || Told(watch::Sender::new(at("a:20203")));
    let directory = told();
    directory.0.send_replace(at("here:1"));
    assert_eq!(answer(&directory, &seen, ready(unreachable()), pending()).now_or_never(), Some(None));
    let directory = told();
    let mut asked = Box::pin(answer(&directory, &seen, pending::<Result<(), _>>(), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    directory.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
    let directory = told();
    let mut asked = Box::pin(answer(&directory, &seen, ready(unreachable()), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    directory.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_somebody_else_ends_the_pause() {
    let (directory, seen) = (Told(watch::Sender::new(at("a:1"))), at("a:1"));
    let (open, opened) = tokio::sync::oneshot::channel::<()>();
    let mut asked = Box::pin(answer(&directory, &seen, ready(unreachable()), opened.map(drop)));
    assert_eq!(asked.as_mut().now_or_never(), None);
    open.send(()).unwrap();
    assert_eq!(asked.now_or_never(), Some(None));
    // One that stands already is no reason: it is what the refusal came over.
    let refused = ready(Err::<(), _>(CallError::Refused(Refusal::NotPrimary { hint: None })));
    assert_eq!(answer(&directory, &seen, refused, ready(())).now_or_never(), None);
    let started = tokio::time::Instant::now();
    assert_eq!(answer(&directory, &seen, ready(unreachable()), pending()).await, None);
    assert_eq!(started.elapsed(), AFTER_FAILURE);
}

#[test]
fn a_pause_in_vain_is_the_last_for_a_while() {
    let (air, start) = (Air::default(), Instant::now());
    assert!(air.is_clear(Txid::new(0)));
    air.target.store(5, Ordering::Relaxed);
    assert!(!air.is_clear(Txid::new(4)) && air.is_clear(Txid::new(5)));
    assert_eq!(air.target(start), Some(Txid::new(5)));
    air.note(true, start);
    assert_eq!(air.target(start), Some(Txid::new(5)));
    air.note(false, start);
    assert_eq!(air.target(start), None);
    assert_eq!(air.target(start - AFTER_IN_VAIN - AFTER_IN_VAIN), Some(Txid::new(5)));
    assert_eq!(air.counts(), (2, 1));
    air.forget();
    assert!(air.is_clear(Txid::new(0)));
}
