//! The one who writes: fences, executes, proves. It works on whatever thread lets it ([`queue`](super::queue)).

mod commit_guard;
mod group;
mod session;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use litefs_core::RoleStamp;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(super) use self::commit_guard::unconfirmed;
use super::ServerConfig;
use super::commits::Commits;
use super::handoff::{Successors, handoff_failed};
use super::queue::{self, Queue};
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use super::sessions::{Ended, Sessions};
use crate::executor::Executor;
use crate::limits::Limits;
use crate::wire::{
    Begin, BeginMode, Command, Reply, Request, RequestId, ServerError, SessionId, Settings, Settled,
};

/// What became of the statement that rode along with BEGIN.
type First = Result<Reply, ServerError>;
type Respond<T> = oneshot::Sender<Result<T, ServerError>>;

/// What the handlers ask of the writer.
pub(super) enum Job {
    Write(Write),
    Settle { id: RequestId, deadline: Instant, respond: Respond<Settled> },
    Handoff { to: Option<String>, deadline: Instant, respond: Respond<String> },
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
    Run { work: Command, respond: Respond<Reply> },
    Finish { commit: bool, respond: Respond<Reply> },
}

impl Job {
    /// Whether it is over as soon as one statement is.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Job::Write(write) => matches!(write.request.work, Command::Execute(_) | Command::Query(_)),
            _ => false,
        }
    }
}

pub(super) struct Writer<E> {
    executor: E,
    role_guard: Arc<dyn RoleGuard>,
    sessions: Arc<Sessions>,
    limits: Limits,
    prove_commits: bool,
    runtime: Handle,
    successors: Arc<Successors>,
    replicas: Arc<Replicas>,
    commits: Arc<Commits>,
    /// The standing under which work was begun last.
    term: Option<RoleStamp>,
    /// How long writes take on average, a group counting as one.
    pace: Duration,
}

/// The weight of the last job in the average is one of this many.
const PACE_WEIGHT: u32 = 8;

impl<E: Executor> Writer<E> {
    /// To be made on the runtime on which the role guard lives.
    pub(super) fn new(
        executor: E,
        config: &ServerConfig,
        role_guard: Arc<dyn RoleGuard>,
        sessions: Arc<Sessions>,
        successors: Arc<Successors>,
        replicas: Arc<Replicas>,
        commits: Arc<Commits>,
    ) -> Self {
        let (limits, prove_commits) = (config.limits.clone(), config.prove_commits);
        let pace = queue::UNKNOWN_PACE;
        let runtime = Handle::current();
        Self {
            executor,
            role_guard,
            sessions,
            limits,
            prove_commits,
            runtime,
            successors,
            replicas,
            commits,
            term: None,
            pace,
        }
    }

    /// Waits for what lives on the role guard's runtime. Blocks.
    fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        pollster::block_on(self.runtime.spawn(future)).ok()
    }

    fn writes_at_pace(&mut self, write: Write, queue: &Queue) {
        let started = Instant::now();
        let _committing = self.commits.begin();
        self.writes(write, queue);
        self.pace = (self.pace * (PACE_WEIGHT - 1) + started.elapsed()) / PACE_WEIGHT;
    }
}

impl<E: Executor> queue::Work for Writer<E> {
    fn run(&mut self, job: Job, queue: &Queue) {
        match job {
            Job::Write(write) => self.writes_at_pace(write, queue),
            Job::Settle { id, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.settle(id, deadline));
                }
            }
            Job::Handoff { to, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.handoff(to, deadline));
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
    }

    fn pace(&self) -> Duration {
        self.pace
    }
}

impl<E: Executor> Writer<E> {
    /// A write by itself. Whoever does not wait for it any more has not had it begun.
    fn alone(&mut self, write: Write) {
        if !write.respond.is_closed() {
            let _ = write.respond.send(self.write(&write.request, write.deadline));
        }
    }

    /// RoleGuard, execute, prove.
    fn write(&mut self, request: &Request, deadline: Instant) -> Result<Reply, ServerError> {
        let guard = self.admit(deadline)?;
        match self.executor.write(request) {
            Ok(done) => self.prove(guard, done),
            Err(refusal) => Err(self.judge(refusal, guard).or(|| match request.work {
                // Its first statements may have been committed before.
                Command::Script(_) => unconfirmed("the role changed while the script ran", ""),
                _ => self.not_primary(),
            })),
        }
    }

    fn settle(&mut self, id: RequestId, deadline: Instant) -> Result<Settled, ServerError> {
        let guard = self.admit(deadline)?;
        let _committing = self.commits.begin();
        match self.executor.resolve_outcome(id) {
            Ok((outcome, wrote)) => {
                let position = self.prove_position(guard, wrote)?;
                Ok(Settled { outcome, position })
            }
            Err(refusal) => Err(self.judge(refusal, guard).or(|| self.not_primary())),
        }
    }

    fn handoff(&mut self, to: Option<String>, deadline: Instant) -> Result<String, ServerError> {
        let guard = self.admit(deadline)?;
        let (successor, address) = self.successors.choose(to.as_deref())?;
        let _handing_over = self.successors.begin();
        // From here on nobody writes, forwarded or not.
        let begun = self.executor.begin(&Settings::default(), BeginMode::Immediate);
        begun.map_err(|refusal| self.judge(refusal, guard).or(|| self.not_primary()))?;
        let position = self.role_guard.position().map_err(handoff_failed);
        let promoted = position.and_then(|position| {
            let (successors, role_guard) = (Arc::clone(&self.successors), Arc::clone(&self.role_guard));
            let promoted = self
                .wait(async move { successors.promote(&address, position, &*role_guard, deadline).await });
            promoted.unwrap_or_else(|| Err(handoff_failed("the node is shutting down")))
        });
        self.executor.rollback();
        promoted.map(|()| successor.node)
    }
}
