//! The queue of the writer, and the choice of the thread on which the writer runs.
//!
//! The writer has its own thread, for transactions, slow storage and many writes at once. Waking
//! that thread and being woken by it costs more than a fast write. So if the writer is idle and its
//! recent jobs were fast, it runs inline on the thread that serves the connections: one wake-up
//! from the socket to the answer instead of three. There is one writer; one thread at a time holds
//! it, and the queue stores it while it is idle.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::job::{Job, Write};
use crate::wire::ServerError;

/// Jobs run inline while their average latency is at most this: no other connection is served
/// meanwhile.
const INLINE_MAX: Duration = Duration::from_micros(500);
/// The average latency before the first job: jobs do not run inline until they are known to be
/// fast.
pub(super) const INITIAL_LATENCY: Duration = Duration::from_millis(1);
/// With more jobs in the queue than this, the writer's thread runs them, while the serving thread
/// sends answers and receives requests.
const INLINE_MAX_QUEUE: usize = 4;

/// Runs jobs, one at a time.
pub(super) trait Worker: Send {
    /// Runs a job, and further writes that it takes from the queue to share its commit.
    fn run(&mut self, job: Job, queue: &Queue);

    /// The average latency of recent jobs.
    fn average_latency(&self) -> Duration;
}

/// The jobs for one writer, from all connections.
pub(super) struct Queue {
    state: Mutex<State>,
    limit: usize,
    /// Wakes the task that runs jobs inline.
    inline_ready: Notify,
    /// Wakes the writer's thread.
    thread_ready: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    writer: Writer,
    ended: bool,
}

/// Which thread holds the writer.
enum Writer {
    Idle(Box<dyn Worker>),
    /// The writer's thread is about to take it.
    Assigned(Box<dyn Worker>),
    Running,
}

impl Queue {
    /// Creates a queue for at most `limit` jobs, and the writer's thread, which runs until the
    /// queue is [ended](Self::end).
    pub(super) fn start(writer: Box<dyn Worker>, limit: usize) -> std::io::Result<Arc<Self>> {
        let state = State { jobs: VecDeque::new(), writer: Writer::Idle(writer), ended: false };
        let queue = Arc::new(Self {
            state: Mutex::new(state),
            limit,
            inline_ready: Notify::new(),
            thread_ready: Condvar::new(),
        });
        let thread = Arc::clone(&queue);
        let name = "litefs-writer".into();
        std::thread::Builder::new().name(name).spawn(move || thread.run_on_thread())?;
        Ok(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the queue")
    }

    /// Queues a job. Does not block; a full queue refuses it.
    pub(super) fn push(&self, job: Job) -> Result<(), ServerError> {
        let mut state = self.state();
        if state.ended {
            return Err(ServerError::ShuttingDown);
        }
        if state.jobs.len() >= self.limit {
            return Err(ServerError::Overloaded { limit: self.limit });
        }
        state.jobs.push_back(job);
        self.dispatch(&mut state);
        Ok(())
    }

    /// Runs a single statement on the calling thread if the writer is idle and nothing is queued,
    /// or queues it. Blocks while the job runs.
    pub(super) fn run_or_push(&self, job: Job) -> Result<(), ServerError> {
        let mut state = self.state();
        let free = state.jobs.is_empty() && !state.ended && job.is_single_statement();
        let Some(mut writer) = free.then(|| state.take_idle()).flatten() else {
            drop(state);
            return self.push(job);
        };
        drop(state);
        let lease = WriterLease::new(self);
        writer.run(job, self);
        lease.release();
        let mut state = self.state();
        state.writer = Writer::Idle(writer);
        if !state.jobs.is_empty() {
            self.dispatch(&mut state);
        }
        Ok(())
    }

    /// Wakes the thread that has to run the next job, if the writer is idle.
    fn dispatch(&self, state: &mut State) {
        let Some(writer) = state.take_idle() else { return };
        if state.may_run_inline(&*writer) {
            state.writer = Writer::Idle(writer);
            self.inline_ready.notify_one();
        } else {
            state.writer = Writer::Assigned(writer);
            self.thread_ready.notify_one();
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

    /// Refuses further jobs. Queued jobs still run.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.thread_ready.notify_one();
    }

    /// Runs jobs inline on the serving thread. Never returns.
    pub(super) async fn run_inline(&self) {
        loop {
            self.inline_ready.notified().await;
            while self.run_next_inline() {
                // Lets the connections' tasks send answers and receive requests.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Returns `false` if there was no job to run inline.
    fn run_next_inline(&self) -> bool {
        let mut state = self.state();
        if state.jobs.is_empty() {
            return false;
        }
        let Some(mut writer) = state.take_idle() else { return false };
        if !state.may_run_inline(&*writer) {
            state.writer = Writer::Assigned(writer);
            self.thread_ready.notify_one();
            return false;
        }
        let job = state.jobs.pop_front();
        drop(state);
        let lease = WriterLease::new(self);
        if let Some(job) = job {
            writer.run(job, self);
        }
        lease.release();
        self.state().writer = Writer::Idle(writer);
        true
    }

    /// Runs jobs on the writer's thread.
    fn run_on_thread(&self) {
        let lease = WriterLease::new(self);
        while let Some(mut writer) = self.wait_until_assigned() {
            loop {
                let mut state = self.state();
                let Some(job) = state.jobs.pop_front() else {
                    // Checked and set under one lock: the next push dispatches again.
                    state.writer = Writer::Idle(writer);
                    break;
                };
                drop(state);
                writer.run(job, self);
            }
        }
        lease.release();
    }

    /// Returns `None` if the queue has ended and is empty.
    fn wait_until_assigned(&self) -> Option<Box<dyn Worker>> {
        let mut state = self.state();
        loop {
            match std::mem::replace(&mut state.writer, Writer::Running) {
                Writer::Assigned(writer) => return Some(writer),
                Writer::Idle(writer) if state.ended && !state.jobs.is_empty() => {
                    return Some(writer);
                }
                Writer::Idle(_) if state.ended => return None,
                other => state.writer = other,
            }
            state = self.thread_ready.wait(state).expect("no code panics while it holds the queue");
        }
    }
}

/// Ends the queue and drops its jobs if the writer panics, so that no caller waits for it. An
/// unwinding thread may use the writer too, so the lease is released explicitly instead of testing
/// whether the thread panics.
struct WriterLease<'a> {
    queue: &'a Queue,
    released: bool,
}

impl<'a> WriterLease<'a> {
    fn new(queue: &'a Queue) -> Self {
        Self { queue, released: false }
    }

    fn release(mut self) {
        self.released = true;
    }
}

impl Drop for WriterLease<'_> {
    fn drop(&mut self) {
        if !self.released {
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
    fn take_idle(&mut self) -> Option<Box<dyn Worker>> {
        match std::mem::replace(&mut self.writer, Writer::Running) {
            Writer::Idle(writer) => Some(writer),
            other => {
                self.writer = other;
                None
            }
        }
    }

    fn may_run_inline(&self, writer: &dyn Worker) -> bool {
        writer.average_latency() <= INLINE_MAX
            && self.jobs.len() <= INLINE_MAX_QUEUE
            && !self.ended
            && self.jobs.front().is_some_and(Job::is_single_statement)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
