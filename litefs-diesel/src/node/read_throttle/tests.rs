//! When the primary is asked again, and when reads wait.

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use litefs_rpc::wire::PrimaryHint;

use super::*;

/// Says where the primary is, and wakes when that changes.
struct Told(watch::Sender<PrimaryLocation>);

impl PrimaryLocator for Told {
    fn location(&self) -> PrimaryLocation {
        self.0.borrow().clone()
    }

    fn changed<'a>(
        &'a self,
        seen: &'a PrimaryLocation,
        deadline: tokio::time::Instant,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut told = self.0.subscribe();
            let change = told.wait_for(|location| location != seen);
            let _ = tokio::time::timeout_at(deadline, change).await;
        })
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

fn at(address: &str) -> PrimaryLocation {
    PrimaryLocation::Elsewhere(PrimaryHint { node: "a".into(), address: address.into() })
}

fn unreachable() -> Result<(), CallError> {
    Err(CallError::Unreachable { address: "a:20203".into(), reason: "no such host".into() })
}

/// The address is learned before the question, while it is under way, or after it has failed.
#[tokio::test(start_paused = true)]
async fn an_address_learned_at_any_time_is_asked_at_once() {
    let seen = at("a:20203");
    let told = || Told(watch::Sender::new(at("a:20203")));
    let locator = told();
    locator.0.send_replace(at("here:1"));
    assert_eq!(answer(&locator, &seen, ready(unreachable()), pending()).now_or_never(), Some(None));
    let locator = told();
    let mut asked = Box::pin(answer(&locator, &seen, pending::<Result<(), _>>(), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    locator.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
    let locator = told();
    let mut asked = Box::pin(answer(&locator, &seen, ready(unreachable()), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    locator.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_somebody_else_ends_the_pause() {
    let (locator, seen) = (Told(watch::Sender::new(at("a:1"))), at("a:1"));
    let (open, opened) = tokio::sync::oneshot::channel::<()>();
    let mut asked = Box::pin(answer(&locator, &seen, ready(unreachable()), opened.map(drop)));
    assert_eq!(asked.as_mut().now_or_never(), None);
    open.send(()).unwrap();
    assert_eq!(asked.now_or_never(), Some(None));
    // One that stands already is no reason: it is what the refusal came over.
    let refused = ready(Err::<(), _>(CallError::Refused(ServerError::NotPrimary { hint: None })));
    assert_eq!(answer(&locator, &seen, refused, ready(())).now_or_never(), None);
    let started = tokio::time::Instant::now();
    assert_eq!(answer(&locator, &seen, ready(unreachable()), pending()).await, None);
    assert_eq!(started.elapsed(), AFTER_FAILURE);
}

#[test]
fn a_pause_in_vain_is_the_last_for_a_while() {
    let (read_throttle, start) = (ReadThrottle::default(), Instant::now());
    assert!(read_throttle.may_read(Txid::new(0)));
    read_throttle.target.store(5, Ordering::Relaxed);
    assert!(!read_throttle.may_read(Txid::new(4)) && read_throttle.may_read(Txid::new(5)));
    assert_eq!(read_throttle.target(start), Some(Txid::new(5)));
    read_throttle.note(true, start);
    assert_eq!(read_throttle.target(start), Some(Txid::new(5)));
    read_throttle.note(false, start);
    assert_eq!(read_throttle.target(start), None);
    assert_eq!(read_throttle.target(start - AFTER_IN_VAIN - AFTER_IN_VAIN), Some(Txid::new(5)));
    assert_eq!(read_throttle.counts(), (2, 1));
    read_throttle.forget();
    assert!(read_throttle.may_read(Txid::new(0)));
}
