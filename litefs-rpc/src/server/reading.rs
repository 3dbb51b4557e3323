//! Reads that other nodes send here because their own file is behind, or because they are told to. They run on connections of
//! their own: SQLite lets readers and a writer work side by side, so no read waits for a transaction, which may be that of the
//! very caller who waits for the read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use litefs_core::RoleStamp;
use tokio::sync::Semaphore;

use super::fence::Fence;
use super::writer::unproven;
use crate::executor::{Reader, Readers};
use crate::limits::Limits;
use crate::wire::{Answer, Effects, Refusal, Reply, Statement, Work};

/// The connections for reads, and who waits for them.
pub(super) struct Reading {
    readers: Arc<dyn Readers>,
    fence: Arc<dyn Fence>,
    idle: Arc<Idle>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
}

/// Connections that nobody uses.
#[derive(Default)]
struct Idle(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    /// The role under which they were opened: the mount of an earlier one may be gone.
    since: Option<RoleStamp>,
    readers: Vec<Box<dyn Reader>>,
}

impl Idle {
    /// Those of the present role.
    fn under(&self, stamp: RoleStamp) -> MutexGuard<'_, Connections> {
        let mut connections = self.connections();
        if connections.since.replace(stamp) != Some(stamp) {
            connections.readers.clear();
        }
        connections
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().expect("no code panics while it holds the idle readers")
    }
}

impl Reading {
    /// `None`: reads take their turn among the writes.
    pub(super) fn new(
        readers: Option<Arc<dyn Readers>>,
        fence: &Arc<dyn Fence>,
        limits: &Limits,
    ) -> Option<Self> {
        Some(Self {
            readers: readers.filter(|_| limits.readers > 0)?,
            fence: Arc::clone(fence),
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(limits.readers.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            limit: limits.queue,
        })
    }

    /// Whether work is done here.
    pub(super) fn takes(&self, work: &Work) -> bool {
        self.readers.read(work).is_some()
    }

    /// Closes the connections that nobody uses.
    pub(super) fn forget(&self) {
        self.idle.connections().readers.clear();
    }

    /// Runs work that this [`takes`](Self::takes).
    pub(super) async fn read(&self, work: Work, deadline: Instant) -> Result<Reply, Refusal> {
        let _waiting = Waiting::new(&self.waiting, self.limit)?;
        let place = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Refusal::TooLate) };
        let (readers, fence, idle) =
            (Arc::clone(&self.readers), Arc::clone(&self.fence), Arc::clone(&self.idle));
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            let statement = readers.read(&work).ok_or_else(|| unproven("not a read", ""))?;
            read(&*readers, &*fence, &idle, statement)
        });
        read.await.unwrap_or_else(|_| Err(unproven("the read was cut short", "")))
    }
}

/// Blocks. A connection on which anything failed is not used again.
fn read(
    readers: &dyn Readers,
    fence: &dyn Fence,
    idle: &Idle,
    statement: &Statement,
) -> Result<Reply, Refusal> {
    let not_primary = || Refusal::NotPrimary { hint: fence.hint() };
    let stamp = fence.writable().ok_or_else(not_primary)?;
    let idle_one = idle.under(stamp).readers.pop();
    let mut reader = idle_one.map_or_else(|| readers.open(), Ok)?;
    let rows = reader.rows(statement);
    // After the rows: what they hold is not beyond it, but for a commit that SQLite shows while LiteFS is still taking it.
    let position = fence.position().map_err(|error| unproven("the position cannot be read: ", error));
    if !fence.holds(stamp) {
        // Whoever asks can ask the next primary: nothing was changed.
        return Err(not_primary());
    }
    let reply = Reply { answer: Answer::Rows(rows?), position: Some(position?), effects: Effects::default() };
    idle.under(stamp).readers.push(reader);
    Ok(reply)
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
