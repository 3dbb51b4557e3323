//! Reads that other nodes send here because their own file is behind, or because they are told to. They run on connections of
//! their own: SQLite lets readers and a writer work side by side, so no read waits for a transaction, which may be that of the
//! very caller who waits for the read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use litefs_core::RoleStamp;
use tokio::sync::Semaphore;

use super::commits::Commits;
use super::fence::Fence;
use super::verdict::Verdict;
use super::writer::unproven;
use crate::executor::{Reader, Readers};
use crate::limits::Limits;
use crate::wire::{Effects, Refusal, Reply, Request, Work};

/// How long a write under way is waited for. Its commit takes milliseconds; a write that takes longer waits for a lock, or is a
/// long script, and mostly has not committed anything yet.
const COMMIT: Duration = Duration::from_secs(1);

/// The connections for reads, and who waits for them.
pub(super) struct Reading {
    fence: Arc<dyn Fence>,
    place: Arc<Place>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
    handing_over: Arc<AtomicBool>,
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
        fence: &Arc<dyn Fence>,
        commits: &Arc<Commits>,
        handing_over: &Arc<AtomicBool>,
        limits: &Limits,
    ) -> Option<Self> {
        let readers = readers.filter(|_| limits.readers > 0)?;
        Some(Self {
            fence: Arc::clone(fence),
            place: Arc::new(Place { readers, commits: Arc::clone(commits), idle: Mutex::default() }),
            permits: Arc::new(Semaphore::new(limits.readers.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            limit: limits.queue,
            handing_over: Arc::clone(handing_over),
        })
    }

    /// Whether work is done here. While the node hands over it is not: the successor may be acknowledging writes already,
    /// and only the writer knows when that is over.
    pub(super) fn takes(&self, work: &Work) -> bool {
        !self.is_handing_over() && self.place.readers.only_reads(work)
    }

    fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Acquire)
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
    ) -> Result<Option<Reply>, Refusal> {
        let _waiting = Waiting::new(&self.waiting, self.limit)?;
        let permits = Arc::clone(&self.permits);
        let permit = tokio::time::timeout_at(deadline.into(), permits.acquire_owned()).await;
        let Some(permit) = permit.ok().and_then(Result::ok).filter(|_| Instant::now() < deadline) else {
            return Err(Refusal::TooLate);
        };
        let stamp = self.fence.writable().filter(|_| !self.is_handing_over());
        let stamp = stamp.ok_or_else(|| self.not_primary())?;
        let (place, fence) = (Arc::clone(&self.place), Arc::clone(&self.fence));
        let request = Arc::clone(request);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            place.read(&*fence, stamp, &request.work)
        });
        let result = read.await.unwrap_or_else(|_| Err(unproven("the read was cut short", "")));
        if result.as_ref().is_err_and(is_doubtful) {
            self.fence.confirm().await;
        }
        // Whoever asks can ask the next primary: nothing was changed.
        if !self.fence.holds(stamp) {
            return Err(self.not_primary());
        }
        result.map_err(|refusal| Verdict::of(refusal, &*self.fence, stamp).or(|| self.not_primary()))
    }

    fn not_primary(&self) -> Refusal {
        Refusal::NotPrimary { hint: self.fence.hint() }
    }
}

/// Whether it may have failed because this node is not the primary any more, which SQLite can meet before anybody has said so.
fn is_doubtful(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unproven { .. }) || refusal.symptom().is_suspicious()
}

impl Place {
    /// Blocks. A connection on which anything failed is not used again.
    fn read(&self, fence: &dyn Fence, stamp: RoleStamp, work: &Work) -> Result<Option<Reply>, Refusal> {
        let mut reader = self.take(stamp).map_or_else(|| self.readers.open(), Ok)?;
        let Some(answer) = reader.run(work)? else { return Ok(None) };
        // What was read is then not beyond the position, but for commits of this node that pass by the writer.
        self.commits.wait(COMMIT);
        let position = fence.position();
        let position = position.map_err(|error| unproven("the position cannot be read: ", error))?;
        self.put(fence, stamp, reader);
        Ok(Some(Reply { answer, position: Some(position), effects: Effects::default() }))
    }

    fn take(&self, stamp: RoleStamp) -> Option<Box<dyn Reader>> {
        let mut idle = self.idle();
        if idle.since.replace(stamp) != Some(stamp) {
            idle.readers.clear();
        }
        idle.readers.pop()
    }

    /// Asked for the role with the lock held, so that [`forget`](Reading::forget) comes before or after.
    fn put(&self, fence: &dyn Fence, stamp: RoleStamp, reader: Box<dyn Reader>) {
        let mut idle = self.idle();
        if idle.since == Some(stamp) && fence.holds(stamp) {
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
    fn new(waiting: &'a AtomicUsize, limit: usize) -> Result<Self, Refusal> {
        let one_more = |waiting| (waiting < limit).then_some(waiting + 1);
        let counted = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.map(|_| Self(waiting)).map_err(|_| Refusal::Overloaded { limit })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
