//! The one thread that writes: it takes jobs from a bounded queue, fences, executes, proves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use litefs_core::{Position, RoleStamp};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::fence::Fence;
use super::handover::{Successors, not_handed_over};
use super::sessions::{Ended, Sessions};
use crate::executor::{Done, Executor, Wrote};
use crate::limits::Limits;
use crate::wire::{
    Answer, Begin, BeginMode, Delivery, Effects, Refusal, Reply, Request, RequestId, SessionId, Settings,
    Settled, Work,
};

/// What became of the statement that rode along with BEGIN.
type First = Result<Reply, Refusal>;
type Respond<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the handlers ask of the writer.
pub(super) enum Job {
    Write { request: Request, deadline: Instant, respond: Respond<Reply> },
    Settle { id: RequestId, deadline: Instant, respond: Respond<Settled> },
    HandOver { to: Option<String>, deadline: Instant, respond: Respond<String> },
    Begin { begin: Begin, deadline: Instant, opened: Opened, respond: Respond<(SessionId, Option<First>)> },
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
    prove_commits: bool,
    runtime: Handle,
    successors: Successors,
}

/// Starts the thread, from the runtime on which the fence lives. It ends when the last [`Queue`] is dropped and every queued job is answered.
pub(super) fn start<E: Executor>(
    executor: E,
    fence: Arc<dyn Fence>,
    sessions: Arc<Sessions>,
    limits: Limits,
    prove_commits: bool,
    successors: Successors,
) -> std::io::Result<(Queue, std::thread::JoinHandle<()>)> {
    let (jobs, queue) = sync_channel(limits.queue);
    let limit = limits.queue;
    let runtime = Handle::current();
    let mut writer = Writer { executor, fence, sessions, limits, prove_commits, runtime, successors };
    let thread = std::thread::Builder::new().name("litefs-writer".into()).spawn(move || {
        for job in queue {
            writer.run(job);
        }
    })?;
    Ok((Queue { jobs, limit }, thread))
}

impl<E: Executor> Writer<E> {
    fn run(&mut self, job: Job) {
        match job {
            Job::Write { request, deadline, respond } => {
                if !respond.is_closed() {
                    let _ = respond.send(self.write(&request, deadline));
                }
            }
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

    /// Work past its deadline is not started, and only a primary starts any.
    fn admit(&self, deadline: Instant) -> Result<Ticket, Refusal> {
        if Instant::now() >= deadline {
            return Err(Refusal::TooLate);
        }
        let Some(stamp) = self.fence.writable() else {
            return Err(Refusal::NotPrimary { hint: self.fence.hint() });
        };
        let before = self.fence.position().ok();
        Ok(Ticket { stamp, before })
    }

    /// SQLite's word for a commit is not enough: LiteFS commits inside an unlock whose errors SQLite ignores. An
    /// acknowledgement takes a position that advanced, on a node that is still the primary it was.
    fn prove(&self, ticket: Ticket, done: Done) -> Result<Reply, Refusal> {
        let position = self.prove_position(ticket, done.wrote)?;
        Ok(Reply { answer: done.answer, position: Some(position), effects: done.effects })
    }

    fn prove_position(&self, ticket: Ticket, wrote: Wrote) -> Result<Position, Refusal> {
        let position =
            self.fence.position().map_err(|error| unproven("the position cannot be read: ", error))?;
        if !self.prove_commits {
            return Ok(position);
        }
        if wrote == Wrote::Rows && ticket.before == Some(position) {
            // Rows that were set to what they were leave SQLite nothing to commit. LiteFS drops a commit only when it
            // loses the lease, so a node that still has it has dropped none.
            self.runtime.block_on(self.fence.confirm());
        }
        if !self.fence.holds(ticket.stamp) {
            return Err(unproven("the role changed during the commit", ""));
        }
        Ok(position)
    }

    /// Whether work failed because LiteFS rejected its commit: this node is not the primary any more, which it may
    /// learn here first. Nothing of the rejected transaction is applied.
    fn was_demoted(&self, refusal: &Refusal, ticket: Ticket) -> bool {
        let Refusal::Database(error) = refusal else { return false };
        if !error.is_litefs_rejection() {
            return false;
        }
        self.runtime.block_on(self.fence.confirm());
        !self.fence.holds(ticket.stamp)
    }

    /// Runs one session from BEGIN to its end; whatever else is queued waits, as it would for SQLite's lock.
    fn session(
        &mut self,
        begin: &Begin,
        deadline: Instant,
        opened: &Opened,
        respond: Respond<(SessionId, Option<First>)>,
    ) {
        let ticket = match self.open(begin, deadline) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                self.sessions.end(opened.id, Ended::Finished);
                let _ = respond.send(Err(refusal));
                return;
            }
        };
        let first = begin.first.as_ref().map(|work| self.step(work, &ticket));
        let lost = first.as_ref().is_some_and(|first| first.is_err() && !self.executor.in_transaction());
        let gone = respond.send(Ok((opened.id, first))).is_err();
        let ended = match (lost, gone) {
            (true, _) => Ended::RolledBackBySqlite,
            (_, true) => Ended::Disconnected,
            _ => self.serve(begin, opened, ticket),
        };
        if ended != Ended::Finished {
            self.executor.rollback();
        }
        self.sessions.end(opened.id, ended);
    }

    fn open(&mut self, begin: &Begin, deadline: Instant) -> Result<Ticket, Refusal> {
        let mut ticket = self.admit(deadline)?;
        self.executor.begin(&begin.settings, begin.mode)?;
        let opened = self.check_snapshot(begin, &mut ticket).and_then(|()| self.savepoints(begin));
        if let Err(refusal) = opened {
            self.executor.rollback();
            return Err(refusal);
        }
        Ok(ticket)
    }

    /// With the lock held nobody moves the position any more, so it can be compared with what was read.
    fn check_snapshot(&self, begin: &Begin, ticket: &mut Ticket) -> Result<(), Refusal> {
        ticket.before = self.fence.position().ok();
        match (begin.expected, ticket.before) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(Refusal::SnapshotMoved { expected, actual })
            }
            (Some(_), None) => Err(Refusal::NotPrimary { hint: self.fence.hint() }),
            _ => Ok(()),
        }
    }

    fn savepoints(&mut self, begin: &Begin) -> Result<(), Refusal> {
        for name in &begin.savepoints {
            self.executor.step(&Work::Script(format!("SAVEPOINT {name}")))?;
        }
        Ok(())
    }

    /// Answers the session's statements until it ends or one of its limits does.
    fn serve(&mut self, begin: &Begin, opened: &Opened, ticket: Ticket) -> Ended {
        let end = Instant::now() + self.limits.session_total;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = left.min(self.limits.session_idle);
            match opened.steps.recv_timeout(wait) {
                Ok(Step::Run { work, respond }) => {
                    let reply = self.step(&work, &ticket);
                    let lost = reply.is_err() && !self.executor.in_transaction();
                    let _ = respond.send(reply);
                    if lost {
                        return Ended::RolledBackBySqlite;
                    }
                }
                Ok(Step::Finish { commit, respond }) => {
                    let keep = (begin.delivery == Delivery::ExactlyOnce).then_some(begin.id);
                    let (reply, ended) = self.finish(commit, keep, &ticket);
                    let _ = respond.send(reply);
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
                Err(RecvTimeoutError::Timeout) if left <= self.limits.session_idle => {
                    return Ended::TotalLimit(self.limits.session_total);
                }
                Err(RecvTimeoutError::Timeout) => return Ended::IdleLimit(self.limits.session_idle),
                Err(RecvTimeoutError::Disconnected) => return Ended::Disconnected,
            }
        }
    }

    fn step(&mut self, work: &Work, ticket: &Ticket) -> Result<Reply, Refusal> {
        if !self.fence.holds(ticket.stamp) {
            return Err(Refusal::SessionLost { reason: Ended::Demoted.to_string() });
        }
        let done = self.executor.step(work).map_err(|refusal| match self.was_demoted(&refusal, *ticket) {
            true => Refusal::SessionLost { reason: Ended::Demoted.to_string() },
            false => refusal,
        })?;
        Ok(Reply { answer: done.answer, position: None, effects: done.effects })
    }

    /// A COMMIT that SQLite refuses (a deferred constraint) leaves the transaction open, as it does locally.
    fn finish(
        &mut self,
        commit: bool,
        keep: Option<RequestId>,
        ticket: &Ticket,
    ) -> (Result<Reply, Refusal>, Option<Ended>) {
        if !commit {
            self.executor.rollback();
            let reply = Reply { answer: Answer::Done, position: None, effects: Effects::default() };
            return (Ok(reply), Some(Ended::Finished));
        }
        if !self.fence.holds(ticket.stamp) {
            let refusal = Refusal::SessionLost { reason: Ended::Demoted.to_string() };
            return (Err(refusal), Some(Ended::Demoted));
        }
        match self.executor.commit(keep) {
            Ok(done) => (self.prove(*ticket, done), Some(Ended::Finished)),
            Err(refusal) if self.was_demoted(&refusal, *ticket) => {
                let lost = Refusal::SessionLost { reason: Ended::Demoted.to_string() };
                (Err(lost), Some(Ended::Demoted))
            }
            Err(refusal) if self.executor.in_transaction() => (Err(refusal), None),
            Err(refusal) => (Err(refusal), Some(Ended::RolledBackBySqlite)),
        }
    }
}

fn unproven(what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::Unproven { reason: format!("{what}{why}") }
}

/// The standing under which work was begun.
#[derive(Clone, Copy)]
struct Ticket {
    stamp: RoleStamp,
    before: Option<Position>,
}
