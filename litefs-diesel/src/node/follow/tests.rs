//! When the primary is called again.

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use litefs_rpc::wire::PrimaryHint;
use tokio::sync::watch;

use super::*;

/// A locator whose location the test sets.
struct FakeLocator(watch::Sender<PrimaryLocation>);

impl PrimaryLocator for FakeLocator {
    fn location(&self) -> PrimaryLocation {
        self.0.borrow().clone()
    }

    fn changed<'a>(
        &'a self,
        seen: &'a PrimaryLocation,
        deadline: tokio::time::Instant,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut locations = self.0.subscribe();
            let change = locations.wait_for(|location| location != seen);
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

/// The address is learned before the call, during it, or after it has failed.
#[tokio::test(start_paused = true)]
async fn an_address_learned_at_any_time_is_called_at_once() {
    let seen = at("a:20203");
    let locator_at_a = || FakeLocator(watch::Sender::new(at("a:20203")));
    let locator = locator_at_a();
    locator.0.send_replace(at("here:1"));
    assert_eq!(answer(&locator, &seen, ready(unreachable()), pending()).now_or_never(), Some(None));
    let locator = locator_at_a();
    let mut asked = Box::pin(answer(&locator, &seen, pending::<Result<(), _>>(), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    locator.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
    let locator = locator_at_a();
    let mut asked = Box::pin(answer(&locator, &seen, ready(unreachable()), pending()));
    assert_eq!(asked.as_mut().now_or_never(), None);
    locator.0.send_replace(at("here:1"));
    assert_eq!(asked.now_or_never(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_connection_opened_by_another_caller_ends_the_pause() {
    let (locator, seen) = (FakeLocator(watch::Sender::new(at("a:1"))), at("a:1"));
    let (open, opened) = tokio::sync::oneshot::channel::<()>();
    let mut asked = Box::pin(answer(&locator, &seen, ready(unreachable()), opened.map(drop)));
    assert_eq!(asked.as_mut().now_or_never(), None);
    open.send(()).unwrap();
    assert_eq!(asked.now_or_never(), Some(None));
    // A connection that is already open is no reason: the refusal came over it.
    let refused = ready(Err::<(), _>(CallError::Refused(ServerError::NotPrimary { hint: None })));
    assert_eq!(answer(&locator, &seen, refused, ready(())).now_or_never(), None);
    let started = tokio::time::Instant::now();
    assert_eq!(answer(&locator, &seen, ready(unreachable()), pending()).await, None);
    assert_eq!(started.elapsed(), AFTER_FAILURE);
}
