//! The one thread that writes: it takes jobs from a bounded queue, fences, executes, proves.

mod group;
mod session;
mod standing;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::standing::unproven;
use super::fence::Fence;
use super::handover::{Successors, not_handed_over};
use super::sessions::{Ended, Sessions};
use crate::executor::Executor;
use crate::limits::Limits;
use crate::wire::{Begin, BeginMode, Refusal, Reply, Request, RequestId, SessionId, Settings, Settled, Work};

/// What became of the statement that rode along with BEGIN.
type First = Result<Reply, Refusal>;
type Respond<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the handlers ask of the writer.
pub(super) enum Job {
    Write(Write),
    Settle { id: RequestId, deadline: Instant, respond: Respond<Settled> },
    HandOver { to: Option<String>, deadline: Instant, respond: Respond<String> },
    Begin { begin: Begin, deadline: Instant, opened: Opened, respond: Respond<(SessionId, Option<First>)> },
}

/// A write that waits for its turn.
pub(super) struct Write {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) respond: Respond<Reply>,
}

/// An entry of the session table and the other end of its statements.
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) steps: Receiver<Step>,
}

/// What a session's connection asks of the open transaction.
pub(super) enum Step {
    Run { work: Work, respond: Respond<Reply> },
    Finish { commit: bool, respond: Respond<Reply> },
}

/// The writer's queue, shared by all connections.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: SyncSender<Job>,
    limit: usize,
}

impl Queue {
    /// Never blocks: a full queue is the caller's to hear of.
    pub(super) fn push(&self, job: Job) -> Result<(), Refusal> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Overloaded { limit: self.limit },
            TrySendError::Disconnected(_) => Refusal::ShuttingDown,
        })
    }
}

pub(super) struct Writer<E> {
    executor: E,
    fence: Arc<dyn Fence>,
    sessions: Arc<Sessions>,
    limits: Limits,
    runtime: Handle,
    successors: Successors,
}

/// Starts the thread, from the runtime on which the fence lives. It ends when the last [`Queue`] is dropped and every queued job is answered.
pub(super) fn start<E: Executor>(
    executor: E,
    fence: Arc<dyn Fence>,
    sessions: Arc<Sessions>,
    limits: Limits,
    successors: Successors,
) -> std::io::Result<(Queue, std::thread::JoinHandle<()>)> {
    let (jobs, queue) = sync_channel(limits.queue);
    let limit = limits.queue;
    let mut writer = Writer { executor, fence, sessions, limits, runtime: Handle::current(), successors };
    let thread = std::thread::Builder::new().name("litefs-writer".into()).spawn(move || {
        while let Ok(job) = queue.recv() {
            let mut next = Some(job);
            while let Some(job) = next {
                next = writer.run(job, &queue);
            }
        }
    })?;
    Ok((Queue { jobs, limit }, thread))
}

impl<E: Executor> Writer<E> {
    /// Runs a job, and writes queued behind it with it. Returns the one that came after those.
    fn run(&mut self, job: Job, queue: &Receiver<Job>) -> Option<Job> {
        match job {
            Job::Write(write) => return self.writes(write, queue),
            Job::Settle { id, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.settle(id, deadline));
                }
            }
            Job::HandOver { to, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.hand_over(to.as_deref(), deadline));
                }
            }
            Job::Begin { begin, deadline, opened, respond } => {
                if respond.is_closed() {
                    self.sessions.end(opened.id, Ended::Disconnected);
                } else {
                    self.session(&begin, deadline, &opened, respond);
                }
            }
        }
        None
    }

    /// A write by itself. Whoever does not wait for it any more has not had it begun.
    fn alone(&mut self, write: Write) {
        if !write.respond.is_closed() {
            let _ = write.respond.send(self.write(&write.request, write.deadline));
        }
    }

    /// Fence, execute, prove.
    fn write(&mut self, request: &Request, deadline: Instant) -> Result<Reply, Refusal> {
        let ticket = self.admit(deadline)?;
        match self.executor.write(request) {
            Ok(done) => self.prove(ticket, done),
            Err(refusal) if self.was_demoted(&refusal, ticket) => Err(match request.work {
                // Its first statements may have been committed before.
                Work::Script(_) => unproven("the role changed while the script ran", ""),
                _ => Refusal::NotPrimary { hint: self.fence.hint() },
            }),
            Err(refusal) => Err(refusal),
        }
    }

    fn settle(&mut self, id: RequestId, deadline: Instant) -> Result<Settled, Refusal> {
        let ticket = self.admit(deadline)?;
        match self.executor.settle(id) {
            Ok((outcome, wrote)) => {
                let position = self.prove_position(ticket, wrote)?;
                Ok(Settled { outcome, position })
            }
            Err(refusal) if self.was_demoted(&refusal, ticket) => {
                Err(Refusal::NotPrimary { hint: self.fence.hint() })
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn hand_over(&mut self, to: Option<&str>, deadline: Instant) -> Result<String, Refusal> {
        self.admit(deadline)?;
        let (successor, address) = self.successors.choose(to)?;
        let _handing_over = self.successors.begin();
        // From here on nobody writes, forwarded or not.
        self.executor.begin(&Settings::default(), BeginMode::Immediate)?;
        let position = self.fence.position().map_err(not_handed_over);
        let promoted = position.and_then(|position| {
            let promote = self.successors.promote(&address, position, &*self.fence, deadline);
            self.runtime.block_on(promote)
        });
        self.executor.rollback();
        promoted.map(|()| successor.node)
    }
}
