//! What waits for the writer, and who lets it work.
//!
//! The writer has a thread, for whatever takes its time: transactions, slow storage, many writes at once. Waking that
//! thread and being woken by it costs more than a quick write itself, though. So when the writer is idle and its work has
//! been quick, the thread that serves the connections lets it work right there: one wake-up, from the socket to the answer,
//! instead of three. There is one writer, and whoever has it has it alone; the queue holds it while nobody does.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::writer::{Job, Write};
use crate::wire::ServerError;

/// Work is done on the serving thread while its average takes no longer than this: nobody else is served meanwhile.
const QUICK: Duration = Duration::from_micros(500);
/// Until it is known to be quick, it is not.
pub(super) const UNKNOWN_PACE: Duration = Duration::from_millis(1);
/// With more than this many waiting, answers and new requests had better be taken care of while the writer works.
const FEW: usize = 4;

/// Runs jobs, one after the other.
pub(super) trait Work: Send {
    /// Runs a job, and further writes that it takes from the queue to go with it.
    fn run(&mut self, job: Job, queue: &Queue);

    /// How long a job takes on average.
    fn pace(&self) -> Duration;
}

/// The jobs of one writer, from all connections.
pub(super) struct Queue {
    state: Mutex<State>,
    limit: usize,
    /// Wakes the serving thread's worker.
    here: Notify,
    /// Wakes the writer's thread.
    there: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    writer: Writer,
    ended: bool,
}

/// Who has the writer.
enum Writer {
    Idle(Box<dyn Work>),
    /// It is for the writer's thread to take.
    Called(Box<dyn Work>),
    Working,
}

impl Queue {
    /// A queue for at most `limit` jobs, and the thread that works on it until it is [ended](Self::end).
    pub(super) fn start(writer: Box<dyn Work>, limit: usize) -> std::io::Result<Arc<Self>> {
        let state = Mutex::new(State { jobs: VecDeque::new(), writer: Writer::Idle(writer), ended: false });
        let queue = Arc::new(Self { state, limit, here: Notify::new(), there: Condvar::new() });
        let worker = Arc::clone(&queue);
        std::thread::Builder::new().name("litefs-writer".into()).spawn(move || worker.work_there())?;
        Ok(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the queue")
    }

    /// Never blocks: a full queue is the caller's to hear of.
    pub(super) fn push(&self, job: Job) -> Result<(), ServerError> {
        let mut state = self.state();
        if state.ended {
            return Err(ServerError::ShuttingDown);
        }
        if state.jobs.len() >= self.limit {
            return Err(ServerError::Overloaded { limit: self.limit });
        }
        state.jobs.push_back(job);
        self.call(&mut state);
        Ok(())
    }

    /// Runs a small job on the calling thread if nothing else is to be done, or pushes it. Blocks for as long as the job takes.
    pub(super) fn run_or_push(&self, job: Job) -> Result<(), ServerError> {
        let mut state = self.state();
        let free = state.jobs.is_empty() && !state.ended && job.is_small();
        let Some(mut writer) = free.then(|| state.take_idle()).flatten() else {
            drop(state);
            return self.push(job);
        };
        drop(state);
        let lent = Lent::of(self);
        writer.run(job, self);
        lent.returned();
        let mut state = self.state();
        state.writer = Writer::Idle(writer);
        if !state.jobs.is_empty() {
            self.call(&mut state);
        }
        Ok(())
    }

    /// Has the next job worked on by the right thread, if the writer is idle.
    fn call(&self, state: &mut State) {
        let Some(writer) = state.take_idle() else { return };
        if state.is_for_here(&*writer) {
            state.writer = Writer::Idle(writer);
            self.here.notify_one();
        } else {
            state.writer = Writer::Called(writer);
            self.there.notify_one();
        }
    }

    /// Takes the next job if it is a write that `fits`.
    pub(super) fn next_if(&self, fits: impl FnOnce(&Write) -> bool) -> Option<Write> {
        let mut state = self.state();
        match state.jobs.front() {
            Some(Job::Write(write)) if fits(write) => {}
            _ => return None,
        }
        match state.jobs.pop_front() {
            Some(Job::Write(write)) => Some(write),
            _ => None,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().jobs.len()
    }

    /// Takes no more jobs. Those that wait are still done.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.there.notify_one();
    }

    /// The serving thread's part, until it is dropped.
    pub(super) async fn work_here(&self) {
        loop {
            self.here.notified().await;
            while self.turn_here() {
                // Answers go out and requests come in between one turn and the next.
                tokio::task::yield_now().await;
            }
        }
    }

    /// `false`: nothing is left to do here.
    fn turn_here(&self) -> bool {
        let mut state = self.state();
        if state.jobs.is_empty() {
            return false;
        }
        let Some(mut writer) = state.take_idle() else { return false };
        if !state.is_for_here(&*writer) {
            state.writer = Writer::Called(writer);
            self.there.notify_one();
            return false;
        }
        let job = state.jobs.pop_front();
        drop(state);
        let lent = Lent::of(self);
        if let Some(job) = job {
            writer.run(job, self);
        }
        lent.returned();
        self.state().writer = Writer::Idle(writer);
        true
    }

    fn work_there(&self) {
        let lent = Lent::of(self);
        while let Some(mut writer) = self.wait_until_called() {
            loop {
                let mut state = self.state();
                let Some(job) = state.jobs.pop_front() else {
                    // Seen and said under one lock: whoever pushes from here on calls it again.
                    state.writer = Writer::Idle(writer);
                    break;
                };
                drop(state);
                writer.run(job, self);
            }
        }
        lent.returned();
    }

    /// `None`: everything is done and nothing more will come.
    fn wait_until_called(&self) -> Option<Box<dyn Work>> {
        let mut state = self.state();
        loop {
            match std::mem::replace(&mut state.writer, Writer::Working) {
                Writer::Called(writer) => return Some(writer),
                Writer::Idle(writer) if state.ended && !state.jobs.is_empty() => return Some(writer),
                Writer::Idle(_) if state.ended => return None,
                other => state.writer = other,
            }
            state = self.there.wait(state).expect("no code panics while it holds the queue");
        }
    }
}

/// A writer that panicked is gone: nothing may wait for it. Whether the thread was panicking already does not matter, so the
/// guard is told when all went well.
struct Lent<'a> {
    queue: &'a Queue,
    returned: bool,
}

impl<'a> Lent<'a> {
    fn of(queue: &'a Queue) -> Self {
        Self { queue, returned: false }
    }

    fn returned(mut self) {
        self.returned = true;
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.returned {
            let jobs = {
                let mut state = self.queue.state();
                state.ended = true;
                std::mem::take(&mut state.jobs)
            };
            drop(jobs);
        }
    }
}

impl State {
    fn take_idle(&mut self) -> Option<Box<dyn Work>> {
        match std::mem::replace(&mut self.writer, Writer::Working) {
            Writer::Idle(writer) => Some(writer),
            other => {
                self.writer = other;
                None
            }
        }
    }

    fn is_for_here(&self, writer: &dyn Work) -> bool {
        let quick = writer.pace() <= QUICK && self.jobs.len() <= FEW && !self.ended;
        quick && self.jobs.front().is_some_and(Job::is_small)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::local::block_until;
    use crate::wire::{
        Command as What, Delivery, Output, Reply, Request, RequestId, SessionCounters, Settings, Statement,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    /// Says that it is quick and that it is slow by turns, and takes some writes along.
    struct Moody {
        jobs: usize,
        at_work: Arc<AtomicUsize>,
    }

    impl Work for Moody {
        fn run(&mut self, job: Job, queue: &Queue) {
            assert_eq!(self.at_work.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            self.jobs += 1;
            let mut job = Some(job);
            while let Some(Job::Write(write)) = job {
                let reply =
                    Reply { answer: Output::Done, position: None, effects: SessionCounters::default() };
                let _ = write.respond.send(Ok(reply));
                job = queue.next_if(|_| self.jobs.is_multiple_of(3)).map(Job::Write);
            }
            self.at_work.fetch_sub(1, Ordering::SeqCst);
        }

        fn pace(&self) -> Duration {
            if (self.jobs / 5).is_multiple_of(2) { Duration::ZERO } else { QUICK * 2 }
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
        let queue = Queue::start(Box::new(Moody { jobs: 0, at_work: Arc::default() }), 1_000).unwrap();
        let stop = CancellationToken::new();
        let (serving, stopped) = (Arc::clone(&queue), stop.clone());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(stopped.run_until_cancelled(serving.work_here()));
        });
        std::thread::scope(|scope| {
            for caller in 0..6 {
                let queue = &queue;
                scope.spawn(move || {
                    for _ in 0..500 {
                        let (job, response) = write();
                        let taken = if caller % 2 == 0 { queue.run_or_push(job) } else { queue.push(job) };
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
        let queue = Queue::start(Box::new(Moody { jobs: 0, at_work: Arc::default() }), 10).unwrap();
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
        impl Work for Fragile {
            fn run(&mut self, _: Job, _: &Queue) {
                std::panic::resume_unwind(Box::new("the executor's own fault"));
            }

            fn pace(&self) -> Duration {
                QUICK * 2
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
}
