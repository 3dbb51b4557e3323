//! The writer: checks the role, runs the executor, confirms the commit. The [queue](super::queue)
//! chooses the thread on which it runs.

mod commit_guard;
mod group;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use litefs_core::RoleStamp;
use tokio::runtime::Handle;

use super::commit_barrier::CommitBarrier;
use super::config::ServerConfig;
use super::handoff::Successors;
use super::job::{Job, Write};
use super::queue::{self, Queue};
use super::replicas::Replicas;
use super::role_guard::RoleGuard;
use super::sessions::{Ended, Sessions};
use crate::executor::Executor;
use crate::limits::Limits;
use crate::wire::{
    BeginMode, Command, Reply, Request, RequestId, ResolvedOutcome, ServerError, Settings,
};

/// Runs the jobs of a server.
pub(super) struct Writer<E> {
    executor: E,
    role_guard: Arc<dyn RoleGuard>,
    sessions: Arc<Sessions>,
    limits: Limits,
    prove_commits: bool,
    runtime: Handle,
    successors: Arc<Successors>,
    replicas: Arc<Replicas>,
    commits: Arc<CommitBarrier>,
    /// The role under which the last job was started.
    term: Option<RoleStamp>,
    /// The average latency of writes; a group counts as one.
    average_latency: Duration,
}

/// The weight of the last job in the average is one of this many.
const LATENCY_WEIGHT: u32 = 8;

/// How long a handoff waits for commits on the node's own file to be confirmed, which takes
/// microseconds unless the machine is overloaded.
const UNCONFIRMED: Duration = Duration::from_secs(1);

impl<E: Executor> Writer<E> {
    /// Must be called on the runtime on which the role guard runs.
    pub(super) fn new(
        executor: E,
        config: &ServerConfig,
        role_guard: Arc<dyn RoleGuard>,
        sessions: Arc<Sessions>,
        successors: Arc<Successors>,
        replicas: Arc<Replicas>,
        commits: Arc<CommitBarrier>,
    ) -> Self {
        let (limits, prove_commits) = (config.limits.clone(), config.prove_commits);
        let average_latency = queue::INITIAL_LATENCY;
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
            average_latency,
        }
    }

    /// Runs a future on the role guard's runtime. Blocks.
    fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        pollster::block_on(self.runtime.spawn(future)).ok()
    }

    fn run_measured(&mut self, write: Write, queue: &Queue) {
        let started = Instant::now();
        let _in_progress = self.commits.begin();
        self.run_writes(write, queue);
        self.average_latency =
            (self.average_latency * (LATENCY_WEIGHT - 1) + started.elapsed()) / LATENCY_WEIGHT;
    }
}

impl<E: Executor> queue::Worker for Writer<E> {
    fn run(&mut self, job: Job, queue: &Queue) {
        match job {
            Job::Write(write) => self.run_measured(write, queue),
            Job::ResolveOutcome { id, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.resolve_outcome(id, deadline));
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

    fn average_latency(&self) -> Duration {
        self.average_latency
    }
}

impl<E: Executor> Writer<E> {
    /// Runs a write alone. A write whose caller has gone is not started.
    fn run_alone(&mut self, write: Write) {
        if !write.respond.is_closed() {
            let _ = write.respond.send(self.write(&write.request, write.deadline));
        }
    }

    /// Checks the role, executes, confirms the commit.
    fn write(&mut self, request: &Request, deadline: Instant) -> Result<Reply, ServerError> {
        let guard = self.admit(deadline)?;
        match self.executor.write(request) {
            Ok(done) => self.confirm(guard, done),
            Err(refusal) => Err(self
                .judge(refusal, guard)
                .or(|| match request.work {
                    // The first statements of a script may have been committed before.
                    Command::Script(_) => {
                        ServerError::unconfirmed("the role changed while the script ran")
                    }
                    _ => self.not_primary(),
                })
                .at(self.role_guard.position().ok())),
        }
    }

    fn resolve_outcome(
        &mut self,
        id: RequestId,
        deadline: Instant,
    ) -> Result<ResolvedOutcome, ServerError> {
        let guard = self.admit(deadline)?;
        let _in_progress = self.commits.begin();
        match self.executor.resolve_outcome(id) {
            Ok((outcome, wrote)) => {
                let position = self.confirm_position(guard, wrote)?;
                Ok(ResolvedOutcome { outcome, position })
            }
            Err(refusal) => Err(self.judge(refusal, guard).or(|| self.not_primary())),
        }
    }

    fn handoff(&mut self, to: Option<String>, deadline: Instant) -> Result<String, ServerError> {
        let guard = self.admit(deadline)?;
        let (successor, address) = self.successors.choose(to.as_deref())?;
        let _in_progress = self.successors.begin();
        // With the write lock held, no forwarded or local write can run.
        let begun = self.executor.begin(&Settings::default(), BeginMode::Immediate);
        begun.map_err(|refusal| self.judge(refusal, guard).or(|| self.not_primary()))?;
        self.role_guard.wait_for_commits(UNCONFIRMED);
        let position = self.role_guard.position().map_err(ServerError::handoff_failed);
        let promoted = position.and_then(|position| {
            let (successors, role_guard) =
                (Arc::clone(&self.successors), Arc::clone(&self.role_guard));
            let promoted = self.wait(async move {
                successors.promote(&address, position, &*role_guard, deadline).await
            });
            promoted
                .unwrap_or_else(|| Err(ServerError::handoff_failed("the node is shutting down")))
        });
        self.executor.rollback();
        promoted.map(|()| successor.node)
    }
}
