//! Runs one session: a transaction that a connection has opened, from BEGIN to its end.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use litefs_core::CommitGuard;

use super::Writer;
use crate::executor::Executor;
use crate::server::job::{First, Opened, Respond, Step};
use crate::server::sessions::Ended;
use crate::server::verdict::Verdict;
use crate::wire::{
    Begin, Command, Delivery, Output, Reply, RequestId, ServerError, SessionCounters, SessionId,
};

impl<E: Executor> Writer<E> {
    /// Runs one session from BEGIN to its end. Queued jobs wait, as they would for SQLite's lock.
    pub(super) fn session(
        &mut self,
        begin: &Begin,
        deadline: Instant,
        opened: &Opened,
        respond: Respond<(SessionId, Option<First>)>,
    ) {
        let guard = match self.open(begin, deadline) {
            Ok(guard) => guard,
            Err(refusal) => {
                self.sessions.end(opened.id, Ended::Finished);
                let _ = respond.send(Err(refusal));
                return;
            }
        };
        let first = begin.first.as_ref().map(|work| self.step(work, &guard));
        let lost =
            first.as_ref().is_some_and(|first| first.is_err() && !self.executor.in_transaction());
        let gone = respond.send(Ok((opened.id, first))).is_err();
        let ended = match (lost, gone) {
            (true, _) => Ended::RolledBackBySqlite,
            (_, true) => Ended::Disconnected,
            _ => self.serve(begin, opened, guard),
        };
        if ended != Ended::Finished {
            self.executor.rollback();
        }
        self.sessions.end(opened.id, ended);
    }

    fn open(&mut self, begin: &Begin, deadline: Instant) -> Result<CommitGuard, ServerError> {
        let mut guard = self.admit(deadline)?;
        let begun = self.executor.begin(&begin.settings, begin.mode);
        begun.map_err(|refusal| self.judge(refusal, guard).or(|| self.not_primary()))?;
        let opened = self.check_snapshot(begin, &mut guard).and_then(|()| self.savepoints(begin));
        if let Err(refusal) = opened {
            self.executor.rollback();
            return Err(self.judge(refusal, guard).or(|| self.not_primary()));
        }
        Ok(guard)
    }

    /// Compares the position with the one that the transaction's local reads saw. The write lock is
    /// held, so the position does not change any more.
    fn check_snapshot(&self, begin: &Begin, guard: &mut CommitGuard) -> Result<(), ServerError> {
        *guard = guard.locked_at(self.role_guard.position().ok());
        match (begin.expected, guard.before()) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(ServerError::SnapshotMoved { expected, actual })
            }
            (Some(_), None) => Err(self.not_primary()),
            _ => Ok(()),
        }
    }

    fn savepoints(&mut self, begin: &Begin) -> Result<(), ServerError> {
        for name in &begin.savepoints {
            self.executor.step(&Command::Script(format!("SAVEPOINT \"{name}\"")))?;
        }
        Ok(())
    }

    /// Answers the session's statements until it ends or exceeds a limit.
    fn serve(&mut self, begin: &Begin, opened: &Opened, guard: CommitGuard) -> Ended {
        let end = Instant::now() + self.limits.session_total;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = left.min(self.limits.session_idle);
            match opened.steps.recv_timeout(wait) {
                Ok(Step::Run { work, respond }) => {
                    let reply = self.step(&work, &guard);
                    let lost = reply.is_err() && !self.executor.in_transaction();
                    let _ = respond.send(reply);
                    if lost {
                        return Ended::RolledBackBySqlite;
                    }
                }
                Ok(Step::Finish { commit, respond }) => {
                    let keep = (begin.delivery == Delivery::ExactlyOnce).then_some(begin.id);
                    let (reply, ended) = self.finish(commit, keep, &guard);
                    let _ = respond.send(reply);
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
                Err(RecvTimeoutError::Timeout) if left <= self.limits.session_idle => {
                    return Ended::TotalLimit(self.limits.session_total);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Ended::IdleLimit(self.limits.session_idle);
                }
                Err(RecvTimeoutError::Disconnected) => return Ended::Disconnected,
            }
        }
    }

    fn step(&mut self, work: &Command, guard: &CommitGuard) -> Result<Reply, ServerError> {
        if !self.role_guard.holds(guard.stamp()) {
            return Err(lost_to_demotion());
        }
        let done = self.executor.step(work);
        let done = done.map_err(|refusal| {
            self.judge(refusal, *guard).or(lost_to_demotion).at(guard.before())
        })?;
        Ok(Reply { answer: done.answer, position: None, effects: done.effects })
    }

    /// A COMMIT that SQLite refuses (a deferred constraint) leaves the transaction open, as it does
    /// locally.
    fn finish(
        &mut self,
        commit: bool,
        keep: Option<RequestId>,
        guard: &CommitGuard,
    ) -> (Result<Reply, ServerError>, Option<Ended>) {
        if !commit {
            self.executor.rollback();
            let reply =
                Reply { answer: Output::Done, position: None, effects: SessionCounters::default() };
            return (Ok(reply), Some(Ended::Finished));
        }
        if !self.role_guard.holds(guard.stamp()) {
            return (Err(lost_to_demotion()), Some(Ended::Demoted));
        }
        let _in_progress = self.commits.begin();
        match self.executor.commit(keep) {
            Ok(done) => match self.confirm(*guard, done) {
                Err(ServerError::NotPrimary { .. }) => {
                    (Err(lost_to_demotion()), Some(Ended::Demoted))
                }
                reply => (reply, Some(Ended::Finished)),
            },
            Err(refusal) => match self.judge(refusal, *guard) {
                Verdict::Gone => (Err(lost_to_demotion()), Some(Ended::Demoted)),
                Verdict::Refused(refusal) => {
                    let open = matches!(refusal, ServerError::Database(_))
                        && self.executor.in_transaction();
                    (Err(refusal), (!open).then_some(Ended::RolledBackBySqlite))
                }
            },
        }
    }
}

fn lost_to_demotion() -> ServerError {
    ServerError::SessionLost { reason: Ended::Demoted.to_string() }
}
