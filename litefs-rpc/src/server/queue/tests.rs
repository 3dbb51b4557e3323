//! Tests of the queue.

use super::*;
use crate::server::block::block_until;
use crate::wire::{
    Command as What, Delivery, Output, Reply, Request, RequestId, SessionCounters, Settings,
    Statement,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Reports a short and a long latency in turns, and sometimes takes further writes from the queue.
struct FlakyRunner {
    jobs: usize,
    running: Arc<AtomicUsize>,
}

impl Worker for FlakyRunner {
    fn run(&mut self, job: Job, queue: &Queue) {
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
        self.jobs += 1;
        let mut job = Some(job);
        while let Some(Job::Write(write)) = job {
            let reply =
                Reply { answer: Output::Done, position: None, effects: SessionCounters::default() };
            let _ = write.respond.send(Ok(reply));
            job = queue.next_if(|_| self.jobs.is_multiple_of(3)).map(Job::Write);
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn average_latency(&self) -> Duration {
        if (self.jobs / 5).is_multiple_of(2) { Duration::ZERO } else { INLINE_MAX * 2 }
    }
}

fn write() -> (Job, oneshot::Receiver<Result<Reply, ServerError>>) {
    let (respond, response) = oneshot::channel();
    let statement = Statement { sql: "INSERT".into(), params: vec![], cacheable: true };
    let request = Request {
        id: RequestId::new(),
        delivery: Delivery::AtMostOnce,
        again: false,
        settings: Settings::default(),
        work: What::Execute(statement),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    (Job::Write(Write { request, deadline, respond }), response)
}

#[test]
fn every_job_is_done_on_whatever_thread() {
    let queue =
        Queue::start(Box::new(FlakyRunner { jobs: 0, running: Arc::default() }), 1_000).unwrap();
    let stop = CancellationToken::new();
    let (serving, stopped) = (Arc::clone(&queue), stop.clone());
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(stopped.run_until_cancelled(serving.run_inline()));
    });
    std::thread::scope(|scope| {
        for caller in 0..6 {
            let queue = &queue;
            scope.spawn(move || {
                for _ in 0..500 {
                    let (job, response) = write();
                    let taken =
                        if caller % 2 == 0 { queue.run_or_push(job) } else { queue.push(job) };
                    taken.unwrap();
                    let answer = block_until(Instant::now() + Duration::from_secs(10), response);
                    assert!(matches!(answer, Some(Ok(Ok(_)))), "it was not done");
                }
            });
        }
    });
    assert_eq!(queue.waiting(), 0);
    queue.end();
    assert_eq!(queue.push(write().0), Err(ServerError::ShuttingDown));
    stop.cancel();
    server.join().unwrap();
}

#[test]
fn a_write_while_its_thread_unwinds_is_a_write_like_others() {
    struct WritesAtTheEnd<'a>(&'a Queue);
    impl Drop for WritesAtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.run_or_push(write().0).unwrap();
        }
    }
    let queue =
        Queue::start(Box::new(FlakyRunner { jobs: 0, running: Arc::default() }), 10).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _writes = WritesAtTheEnd(&queue);
        std::panic::resume_unwind(Box::new("the application's own fault"));
    }));
    assert!(unwound.is_err());
    assert_eq!(queue.run_or_push(write().0), Ok(()), "the writer is still there");
    queue.end();
}

#[test]
fn a_writer_that_panics_leaves_nobody_waiting() {
    struct Fragile;
    impl Worker for Fragile {
        fn run(&mut self, _: Job, _: &Queue) {
            std::panic::resume_unwind(Box::new("the executor's own fault"));
        }

        fn average_latency(&self) -> Duration {
            INLINE_MAX * 2
        }
    }
    let queue = Queue::start(Box::new(Fragile), 10).unwrap();
    let (job, response) = write();
    queue.push(job).unwrap();
    let answer = block_until(Instant::now() + Duration::from_secs(10), response);
    assert!(matches!(answer, Some(Err(_))), "{answer:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while queue.push(write().0) != Err(ServerError::ShuttingDown) {
        assert!(Instant::now() < deadline, "it goes on taking jobs");
    }
}
