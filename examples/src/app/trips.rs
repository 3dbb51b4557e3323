//! Which calls were forwarded, from the library's own telemetry.

use std::cell::Cell;

use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

thread_local! {
    static TRIPS: Cell<u64> = const { Cell::new(0) };
}

/// A `tracing` layer that counts the library's `litefs.forward` spans per thread. Diesel's calls
/// are synchronous, so the difference of two counts on a thread belongs to the call between them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CountTrips;

impl<S: tracing::Subscriber> Layer<S> for CountTrips {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if span.metadata().name() == "litefs.forward" {
            TRIPS.set(TRIPS.get() + 1);
        }
    }
}

/// The number of requests that this thread has sent to a primary so far.
pub(super) fn of_this_thread() -> u64 {
    TRIPS.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn only_forwards_count_and_only_on_their_own_thread() {
        let subscriber = tracing_subscriber::registry().with(CountTrips);
        tracing::subscriber::with_default(subscriber, || {
            let before = of_this_thread();
            drop(tracing::info_span!("litefs.forward"));
            drop(tracing::info_span!("another"));
            assert_eq!(of_this_thread(), before + 1);
        });
        assert_eq!(std::thread::spawn(of_this_thread).join().unwrap(), 0);
    }
}
