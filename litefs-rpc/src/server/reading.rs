//! Reads that other nodes send here because their own file is behind, or because they are told to. They run on connections of
//! their own: SQLite lets readers and a writer work side by side, so no read waits for a transaction, which may be that of the
//! very caller who waits for the read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use litefs_core::RoleStamp;
use tokio::sync::Semaphore;

use super::commits::Commits;
use super::role_guard::RoleGuard;
use super::verdict::Verdict;
use super::writer::unconfirmed;
use crate::executor::{Reader, Readers};
use crate::limits::Limits;
use crate::wire::{Command, Reply, Request, ServerError, SessionCounters};

/// How long a write under way is waited for. Its commit takes milliseconds; a write that takes longer waits for a lock, or is a
/// long script, and mostly has not committed anything yet.
const COMMIT: Duration = Duration::from_secs(1);

/// The connections for reads, and who waits for them.
pub(super) struct Reading {
    role_guard: Arc<dyn RoleGuard>,
    place: Arc<Place>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
    handoff_running: Arc<AtomicBool>,
}

/// What a read needs once it runs.
struct Place {
    readers: Arc<dyn Readers>,
    commits: Arc<Commits>,
    idle: Mutex<Idle>,
}

/// Connections that nobody uses.
#[derive(Default)]
struct Idle {
    /// The role under which they were opened: the mount of an earlier one may be gone.
    since: Option<RoleStamp>,
    readers: Vec<Box<dyn Reader>>,
}

impl Reading {
    /// `None`: reads take their turn among the writes.
    pub(super) fn new(
        readers: Option<Arc<dyn Readers>>,
        role_guard: &Arc<dyn RoleGuard>,
        commits: &Arc<Commits>,
        handoff_running: &Arc<AtomicBool>,
        limits: &Limits,
    ) -> Option<Self> {
        let readers = readers.filter(|_| limits.readers > 0)?;
        Some(Self {
            role_guard: Arc::clone(role_guard),
            place: Arc::new(Place { readers, commits: Arc::clone(commits), idle: Mutex::default() }),
            permits: Arc::new(Semaphore::new(limits.readers.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            limit: limits.queue,
            handoff_running: Arc::clone(handoff_running),
        })
    }

    /// Whether work is done here. While the node hands over it is not: the successor may be acknowledging writes already,
    /// and only the writer knows when that is over.
    pub(super) fn takes(&self, work: &Command) -> bool {
        !self.is_handing_over() && self.place.readers.only_reads(work)
    }

    fn is_handing_over(&self) -> bool {
        self.handoff_running.load(Ordering::Acquire)
    }

    /// Closes the connections that nobody uses.
    pub(super) fn forget(&self) {
        self.place.idle().readers.clear();
    }

    /// Runs work that this [`takes`](Self::takes). `None`: it is the writer's after all.
    pub(super) async fn read(
        &self,
        request: &Arc<Request>,
        deadline: Instant,
    ) -> Result<Option<Reply>, ServerError> {
        let _waiting = Waiting::new(&self.waiting, self.limit)?;
        let permits = Arc::clone(&self.permits);
        let permit = tokio::time::timeout_at(deadline.into(), permits.acquire_owned()).await;
        let Some(permit) = permit.ok().and_then(Result::ok).filter(|_| Instant::now() < deadline) else {
            return Err(ServerError::TooLate);
        };
        let stamp = self.role_guard.writable().filter(|_| !self.is_handing_over());
        let stamp = stamp.ok_or_else(|| self.not_primary())?;
        let (place, role_guard) = (Arc::clone(&self.place), Arc::clone(&self.role_guard));
        let request = Arc::clone(request);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            place.read(&*role_guard, stamp, &request.work)
        });
        let result = read.await.unwrap_or_else(|_| Err(unconfirmed("the read was cut short", "")));
        if result.as_ref().is_err_and(is_doubtful) {
            self.role_guard.confirm().await;
        }
        // Whoever asks can ask the next primary: nothing was changed.
        if !self.role_guard.holds(stamp) {
            return Err(self.not_primary());
        }
        result.map_err(|refusal| Verdict::of(refusal, &*self.role_guard, stamp).or(|| self.not_primary()))
    }

    fn not_primary(&self) -> ServerError {
        ServerError::NotPrimary { hint: self.role_guard.hint() }
    }
}

/// Whether it may have failed because this node is not the primary any more, which SQLite can meet before anybody has said so.
fn is_doubtful(refusal: &ServerError) -> bool {
    matches!(refusal, ServerError::Unconfirmed { .. }) || refusal.symptom().is_suspicious()
}

impl Place {
    /// Blocks. A connection on which anything failed is not used again.
    fn read(
        &self,
        role_guard: &dyn RoleGuard,
        stamp: RoleStamp,
        work: &Command,
    ) -> Result<Option<Reply>, ServerError> {
        let mut reader = self.take(stamp).map_or_else(|| self.readers.open(), Ok)?;
        let Some(answer) = reader.run(work)? else { return Ok(None) };
        // What was read is then not beyond the position, but for commits of this node that pass by the writer.
        self.commits.wait(COMMIT);
        let position = role_guard.position();
        let position = position.map_err(|error| unconfirmed("the position cannot be read: ", error))?;
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

    /// Asked for the role with the lock held, so that [`forget`](Reading::forget) comes before or after.
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

/// One of those who may wait or read.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize, limit: usize) -> Result<Self, ServerError> {
        let one_more = |waiting| (waiting < limit).then_some(waiting + 1);
        let counted = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.map(|_| Self(waiting)).map_err(|_| ServerError::Overloaded { limit })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
