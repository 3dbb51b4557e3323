//! One request for all callers that ask `/info`, or check the mount, at the same time.

use std::sync::Mutex;

use tokio::sync::{Notify, watch};

use crate::sync::lock;

/// Numbers of requests: one that was started before a question was asked cannot answer it. The next
/// one answers all questions that were asked by then.
#[derive(Debug, Default)]
struct Numbers {
    started: u64,
    wanted: u64,
}

/// The last request that is done.
#[derive(Debug, Clone, Copy, Default)]
struct Finished {
    number: u64,
    answered: bool,
}

/// Lets concurrent callers share one request. A request that started before a call cannot answer
/// it.
#[derive(Debug)]
pub(crate) struct SingleFlight {
    enabled: bool,
    numbers: Mutex<Numbers>,
    wake: Notify,
    finished: watch::Sender<Finished>,
}

impl SingleFlight {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            numbers: Mutex::default(),
            wake: Notify::new(),
            finished: watch::Sender::new(Finished::default()),
        }
    }

    /// Asks without waiting. Answers the number of the request that will do.
    pub(crate) fn request(&self) -> u64 {
        let mut numbers = lock(&self.numbers);
        numbers.wanted = numbers.started + 1;
        self.wake.notify_one();
        numbers.wanted
    }

    /// Asks and waits. Answers whether LiteFS answered; `false` at once where the detector is off.
    pub(crate) async fn confirm(&self) -> bool {
        if !self.enabled {
            return false;
        }
        let number = self.request();
        let mut finished = self.finished.subscribe();
        let done = finished.wait_for(|finished| finished.number >= number).await;
        done.is_ok_and(|finished| finished.answered)
    }

    /// Waits until a request is wanted.
    pub(crate) async fn requested(&self) {
        while {
            let numbers = lock(&self.numbers);
            numbers.wanted <= numbers.started
        } {
            self.wake.notified().await;
        }
    }

    /// To be called before a request is sent: questions asked from now on wait for the next one.
    pub(crate) fn begin(&self) -> u64 {
        let mut numbers = lock(&self.numbers);
        numbers.started += 1;
        numbers.started
    }

    /// To be called when the answer has been merged.
    pub(crate) fn finish(&self, number: u64, answered: bool) {
        self.finished.send_replace(Finished { number, answered });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn questions_asked_together_share_one_request() {
        let desk = SingleFlight::new(true);
        let (mut a, mut b) = (pin!(desk.confirm()), pin!(desk.confirm()));
        assert!(poll!(&mut a).is_pending() && poll!(&mut b).is_pending());
        desk.requested().await;
        let number = desk.begin();
        assert!(poll!(pin!(desk.requested())).is_pending(), "one request is enough");
        desk.finish(number, true);
        assert!(a.await && b.await);
    }

    #[tokio::test]
    async fn a_request_that_is_under_way_does_not_answer_a_later_question() {
        let desk = SingleFlight::new(true);
        let first = desk.begin();
        let mut late = pin!(desk.confirm());
        assert!(poll!(&mut late).is_pending());
        desk.finish(first, true);
        assert!(poll!(&mut late).is_pending());
        desk.requested().await;
        desk.finish(desk.begin(), false);
        assert!(!late.await);
    }

    #[tokio::test]
    async fn d18_nobody_waits_for_a_detector_that_is_off() {
        assert!(!SingleFlight::new(false).confirm().await);
    }
}
