//! Reads that replicas send to the primary, because their own file is behind or because they are
//! told to. They run on their own connections: SQLite allows readers beside a writer, so no read
//! waits for a transaction, which may be open on the connection that sent the read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use litefs_core::RoleStamp;
use tokio::sync::Semaphore;

use super::commit_barrier::CommitBarrier;
use super::role_guard::RoleGuard;
use super::verdict::Verdict;
use crate::executor::{Reader, Readers};
use crate::limits::Limits;
use crate::wire::{Command, Reply, Request, ServerError, SessionCounters};

/// How long a read waits for a write in progress. A commit takes milliseconds; a write that takes
/// longer waits for a lock or is a long script, and has most likely committed nothing yet.
const COMMIT_WAIT: Duration = Duration::from_secs(1);

/// Runs reads of replicas beside the writer.
pub(super) struct ReplicaReads {
    role_guard: Arc<dyn RoleGuard>,
    connections: Arc<ReadConnections>,
    /// One permit for each read that runs.
    running: Arc<Semaphore>,
    /// One permit for each read that waits or runs.
    admitted: Semaphore,
    limit: usize,
    handoff_running: Arc<AtomicBool>,
}

/// The connections for reads.
struct ReadConnections {
    readers: Arc<dyn Readers>,
    commits: Arc<CommitBarrier>,
    idle: Mutex<Idle>,
}

/// Connections that are not in use.
#[derive(Default)]
struct Idle {
    /// The role under which they were opened. The mount of an earlier role may be gone.
    since: Option<RoleStamp>,
    readers: Vec<Box<dyn Reader>>,
}

impl ReplicaReads {
    /// Returns `None` if reads are queued with the writes.
    pub(super) fn new(
        readers: Option<Arc<dyn Readers>>,
        role_guard: &Arc<dyn RoleGuard>,
        commits: &Arc<CommitBarrier>,
        handoff_running: &Arc<AtomicBool>,
        limits: &Limits,
    ) -> Option<Self> {
        let readers = readers.filter(|_| limits.readers > 0)?;
        let commits = Arc::clone(commits);
        let permits = |limit: usize| Semaphore::new(limit.min(Semaphore::MAX_PERMITS));
        Some(Self {
            role_guard: Arc::clone(role_guard),
            connections: Arc::new(ReadConnections { readers, commits, idle: Mutex::default() }),
            running: Arc::new(permits(limits.readers)),
            admitted: permits(limits.queue),
            limit: limits.queue,
            handoff_running: Arc::clone(handoff_running),
        })
    }

    /// Whether a command runs here. During a handoff none does: the successor may acknowledge
    /// writes already, and only the writer knows when the handoff has ended.
    pub(super) fn accepts(&self, work: &Command) -> bool {
        !self.is_handing_off() && self.connections.readers.only_reads(work)
    }

    fn is_handing_off(&self) -> bool {
        self.handoff_running.load(Ordering::Acquire)
    }

    /// Closes the connections that are not in use.
    pub(super) fn close_idle(&self) {
        self.connections.idle().readers.clear();
    }

    /// Runs a command that this [`accepts`](Self::accepts). Returns `None` if the writer has to run
    /// it.
    pub(super) async fn read(
        &self,
        request: &Arc<Request>,
        deadline: Instant,
    ) -> Result<Option<Reply>, ServerError> {
        let overloaded = |_| ServerError::Overloaded { limit: self.limit };
        let _admitted = self.admitted.try_acquire().map_err(overloaded)?;
        let running = Arc::clone(&self.running).acquire_owned();
        let permit = tokio::time::timeout_at(deadline.into(), running).await;
        let permit = permit.ok().and_then(Result::ok).filter(|_| Instant::now() < deadline);
        let permit = permit.ok_or(ServerError::TooLate)?;
        let stamp = self.role_guard.writable().filter(|_| !self.is_handing_off());
        let stamp = stamp.ok_or_else(|| self.not_primary())?;
        let role_guard = Arc::clone(&self.role_guard);
        let (connections, request) = (Arc::clone(&self.connections), Arc::clone(request));
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            connections.read(&*role_guard, stamp, &request.work)
        });
        let result =
            read.await.unwrap_or_else(|_| Err(ServerError::unconfirmed("the read was cut short")));
        self.check_role(result, stamp).await
    }

    /// Decides what a result means on this node's role after the read.
    async fn check_role(
        &self,
        result: Result<Option<Reply>, ServerError>,
        stamp: RoleStamp,
    ) -> Result<Option<Reply>, ServerError> {
        if result.as_ref().is_err_and(may_be_demotion) {
            self.role_guard.confirm().await;
        }
        // The client can ask the next primary: nothing was changed.
        if !self.role_guard.holds(stamp) {
            return Err(self.not_primary());
        }
        result.map_err(|refusal| {
            Verdict::of(refusal, &*self.role_guard, stamp).or(|| self.not_primary())
        })
    }

    fn not_primary(&self) -> ServerError {
        ServerError::NotPrimary { hint: self.role_guard.hint() }
    }
}

impl std::fmt::Debug for ReplicaReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaReads").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Whether a failure may be due to a demotion, which SQLite can meet before LiteFS reports it.
fn may_be_demotion(refusal: &ServerError) -> bool {
    matches!(refusal, ServerError::Unconfirmed { .. }) || refusal.symptom().is_suspicious()
}

impl ReadConnections {
    /// Blocks. A connection on which anything failed is closed.
    fn read(
        &self,
        role_guard: &dyn RoleGuard,
        stamp: RoleStamp,
        work: &Command,
    ) -> Result<Option<Reply>, ServerError> {
        let mut reader = self.take(stamp).map_or_else(|| self.readers.open(), Ok)?;
        let Some(answer) = reader.run(work)? else { return Ok(None) };
        // Afterwards the position covers what was read, except for commits of this node that do not
        // pass the writer.
        self.commits.wait(COMMIT_WAIT);
        let position = role_guard.position().map_err(|error| {
            ServerError::unconfirmed(format!("the position cannot be read: {error}"))
        })?;
        self.put(role_guard, stamp, reader);
        Ok(Some(Reply { answer, position: Some(position), effects: SessionCounters::default() }))
    }

    fn take(&self, stamp: RoleStamp) -> Option<Box<dyn Reader>> {
        let mut idle = self.idle();
        if idle.since.replace(stamp) != Some(stamp) {
            idle.readers.clear();
        }
        idle.readers.pop()
    }

    /// Checks the role with the lock held, so that no connection is added after
    /// [`close_idle`](ReplicaReads::close_idle).
    fn put(&self, role_guard: &dyn RoleGuard, stamp: RoleStamp, reader: Box<dyn Reader>) {
        let mut idle = self.idle();
        if idle.since == Some(stamp) && role_guard.holds(stamp) {
            idle.readers.push(reader);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("no code panics while it holds the idle readers")
    }
}
