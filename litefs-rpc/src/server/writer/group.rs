//! Group commit: queued writes share one transaction and its commit.
//!
//! While one group is committed the next one gathers in the queue, so groups grow with the load.
//! Each write has its own result. If the executor cannot separate them, nothing of the group is
//! applied and its writes run one by one.

use std::time::{Duration, Instant};

use litefs_core::CommitGuard;

use super::Writer;
use crate::executor::{CommitExpectation, Done, Executor, GroupAborted};
use crate::server::job::Write;
use crate::server::queue::Queue;
use crate::server::verdict::Verdict;
use crate::wire::{Reply, ServerError, Settings};

/// A group takes no more members after this time: the first member waits for the last.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// The writes of the open group, in order.
struct Group {
    guard: CommitGuard,
    members: Vec<Member>,
}

/// A write of the group and its result. `None`: the write has to run alone.
struct Member {
    write: Write,
    result: Option<Result<Done, ServerError>>,
}

impl<E: Executor> Writer<E> {
    /// Runs a write, together with those queued behind it that may share its commit.
    pub(super) fn run_writes(&mut self, first: Write, queue: &Queue) {
        let settings = first.request.settings;
        let alone = self.limits.group < 2 || !self.may_share(&first, settings);
        let second =
            if alone { None } else { queue.next_if(|second| self.may_share(second, settings)) };
        match second {
            Some(second) => self.run_group(first, second, queue),
            None => self.run_alone(first),
        }
    }

    fn may_share(&mut self, write: &Write, settings: Settings) -> bool {
        write.request.settings == settings && self.executor.may_share(&write.request)
    }

    fn run_group(&mut self, first: Write, second: Write, queue: &Queue) {
        let settings = first.request.settings;
        let mut group = match self.open_group(&first) {
            Ok(Some(guard)) => Group { guard, members: Vec::new() },
            Ok(None) => {
                self.run_alone(first);
                return self.run_alone(second);
            }
            Err(refusal) => {
                let _ = first.respond.send(Err(refusal.clone()));
                let _ = second.respond.send(Err(refusal));
                return;
            }
        };
        let end = Instant::now() + GATHER_TIME;
        let mut joined = self.join(first, &mut group);
        match joined {
            Ok(()) => joined = self.join(second, &mut group),
            Err(GroupAborted) => group.members.push(Member { write: second, result: None }),
        }
        while joined.is_ok() && group.members.len() < self.limits.group && Instant::now() < end {
            let Some(next) = queue.next_if(|next| self.may_share(next, settings)) else { break };
            joined = self.join(next, &mut group);
        }
        match joined.and_then(|()| self.close_group(&group)) {
            Ok(wrote) => self.answer(group, wrote),
            Err(GroupAborted) => self.break_up(group),
        }
    }

    /// Returns `None` if the writes have to run alone; each then gets its own error.
    fn open_group(&mut self, first: &Write) -> Result<Option<CommitGuard>, ServerError> {
        let Ok(guard) = self.guard() else { return Ok(None) };
        match self.executor.open_group(&first.request.settings) {
            Ok(opened) => Ok(opened.then_some(guard)),
            Err(refusal) => match self.judge(refusal, guard) {
                Verdict::Gone => Ok(None),
                Verdict::Refused(refusal) => Err(refusal),
            },
        }
    }

    /// Runs a write in the group. A write whose caller has gone or whose deadline has passed is not
    /// started.
    fn join(&mut self, write: Write, group: &mut Group) -> Result<(), GroupAborted> {
        if write.respond.is_closed() {
            return Ok(());
        }
        if Instant::now() >= write.deadline {
            let _ = write.respond.send(Err(ServerError::TooLate));
            return Ok(());
        }
        let result = self.executor.join(&write.request).ok();
        let joined = if result.is_some() { Ok(()) } else { Err(GroupAborted) };
        group.members.push(Member { write, result });
        joined
    }

    fn close_group(&mut self, group: &Group) -> Result<CommitExpectation, GroupAborted> {
        if self.role_guard.holds(group.guard.stamp()) {
            self.executor.close_group()
        } else {
            Err(GroupAborted)
        }
    }

    /// Confirms the commit once for all members: it is one LiteFS transaction.
    fn answer(&mut self, group: Group, wrote: CommitExpectation) {
        let position = self.confirm_position(group.guard, wrote);
        for Member { write, result } in group.members {
            let reply = result
                .unwrap_or_else(|| Err(ServerError::unconfirmed("the group was broken up")))
                .and_then(|done| {
                    let position = Some(position.clone()?);
                    Ok(Reply { answer: done.answer, position, effects: done.effects })
                })
                // It may have lost to a member of this group.
                .map_err(|refusal| refusal.at(position.as_ref().ok().copied()));
            let _ = write.respond.send(reply);
        }
    }

    /// Rolls the group back and runs its members alone.
    fn break_up(&mut self, group: Group) {
        self.executor.rollback();
        // If the mount is gone, each write would wait ten seconds for a lock.
        self.recheck_role();
        for member in group.members {
            self.run_alone(member.write);
        }
    }
}
