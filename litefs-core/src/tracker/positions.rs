//! The last known position of the database.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::mount::PositionFile;
use crate::sync::lock;
use crate::{Mount, Position, PositionError, Txid};

/// The position, the number of waiting calls, and the open `<db>-pos`.
#[derive(Debug)]
pub(crate) struct Positions {
    /// Held while reading and publishing, so that an older read never overwrites a newer one.
    file: Mutex<PositionFile>,
    known: watch::Sender<Option<Position>>,
    txid: AtomicU64,
    /// What LiteFS said in its last event: used if the file cannot be read.
    announced: Mutex<Option<Position>>,
    /// The known position was read without waking the subscribers.
    unpublished: AtomicBool,
    /// The mount has come or gone: an open file may belong to the one before.
    reopen: AtomicBool,
    waiting: AtomicUsize,
    wake: Notify,
}

/// Counts a call that waits for a position, until it is dropped.
pub(crate) struct Waiting<'a>(&'a Positions);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Positions {
    pub(crate) fn new() -> Self {
        Self {
            file: Mutex::default(),
            known: watch::Sender::new(None),
            txid: AtomicU64::new(0),
            announced: Mutex::new(None),
            unpublished: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
        }
    }

    #[inline]
    pub(crate) fn txid(&self) -> Txid {
        Txid::new(self.txid.load(Ordering::Acquire))
    }

    pub(crate) fn known(&self) -> Option<Position> {
        *self.known.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Position>> {
        self.known.subscribe()
    }

    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        Waiting(self)
    }

    /// Takes in the position of a `tx` event. The one that follows the known position is published
    /// as it is: reading the file for each would cost a thread's wake-up per commit. Anything else
    /// may be old news or a history that went back, and only the file knows which.
    pub(crate) fn record_event(&self, position: Position) {
        if self.publish_if_next(position).is_none() {
            *lock(&self.announced) = Some(position);
            self.wake.notify_one();
        }
    }

    /// `None`: the file has to be read. Does not wait for a read in progress, which may hang with
    /// its mount.
    fn publish_if_next(&self, announced: Position) -> Option<()> {
        let _not_while_reading = self.file.try_lock().ok()?;
        let known = self.known()?;
        let follows = announced.txid.get() == known.txid.get().wrapping_add(1);
        if follows || (announced == known && self.unpublished.load(Ordering::Acquire)) {
            self.publish(announced);
        }
        (follows || announced == known).then_some(())
    }

    /// Lets the next read open the file anew. Does not wait for a read in progress, which may hang
    /// with its mount.
    pub(crate) fn mount_changed(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Asks for a read soon.
    pub(crate) fn refresh_soon(&self) {
        self.wake.notify_one();
    }

    /// Waits until there is a reason to read: an event, a new waiting call, or `poll` has passed
    /// while calls wait.
    pub(crate) async fn due(&self, poll: Duration) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(poll), if self.waiting.load(Ordering::Relaxed) > 0 => {}
        }
    }

    /// Reads the file and publishes what it says. Blocks.
    pub(crate) fn read(&self, mount: &Mount) -> Result<Position, PositionError> {
        let mut file = self.file();
        let position = file.read(mount)?;
        self.publish(position);
        Ok(position)
    }

    /// Reads the file. The position is known from now on, but subscribers are woken only by
    /// LiteFS's event or by the next read: waking them costs more than the read. Blocks.
    pub(crate) fn peek(&self, mount: &Mount) -> Result<Position, PositionError> {
        let mut file = self.file();
        let position = file.read(mount)?;
        self.txid.store(position.txid.get(), Ordering::Release);
        let news = |known: &mut Option<Position>| {
            if known.replace(position) != Some(position) {
                self.unpublished.store(true, Ordering::Release);
            }
            false
        };
        self.known.send_if_modified(news);
        Ok(position)
    }

    /// Like [`read`](Self::read), and where that fails publishes what LiteFS announced. Blocks.
    pub(crate) fn refresh(&self, mount: &Mount) {
        // Taken before the read: what is announced during it belongs to the next one.
        let announced = lock(&self.announced).take();
        let mut file = self.file();
        if let Some(position) = file.read(mount).ok().or(announced) {
            self.publish(position);
        }
    }

    fn file(&self) -> MutexGuard<'_, PositionFile> {
        let mut file = lock(&self.file);
        if self.reopen.swap(false, Ordering::AcqRel) {
            *file = PositionFile::default();
        }
        file
    }

    fn publish(&self, position: Position) {
        self.txid.store(position.txid.get(), Ordering::Release);
        let unpublished = self.unpublished.swap(false, Ordering::AcqRel);
        self.known
            .send_if_modified(|known| known.replace(position) != Some(position) || unpublished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checksum;

    fn at(txid: u64) -> Position {
        Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
    }

    fn mount(dir: &tempfile::TempDir, position: Position) -> Mount {
        let database = dir.path().join("app.db");
        std::fs::write(&database, "").unwrap();
        std::fs::write(dir.path().join("app.db-pos"), format!("{position}\n")).unwrap();
        Mount::new(&database)
    }

    #[test]
    fn what_was_read_quietly_is_known_at_once_and_told_with_the_event_or_the_next_read() {
        let dir = tempfile::tempdir().unwrap();
        let positions = Positions::new();
        let mut heard = positions.subscribe();
        assert_eq!(positions.peek(&mount(&dir, at(7))).unwrap(), at(7));
        assert_eq!((positions.known(), positions.txid()), (Some(at(7)), Txid::new(7)));
        assert!(!heard.has_changed().unwrap(), "nobody is woken");
        positions.record_event(at(7));
        assert!(heard.has_changed().unwrap(), "the event tells");
        heard.mark_unchanged();
        positions.record_event(at(7));
        assert!(!heard.has_changed().unwrap(), "once");
        let mount = mount(&dir, at(8));
        positions.peek(&mount).unwrap();
        assert!(!heard.has_changed().unwrap());
        positions.read(&mount).unwrap();
        assert!(heard.has_changed().unwrap(), "where no event comes, the next read tells");
        heard.mark_unchanged();
        positions.peek(&mount).unwrap();
        positions.record_event(at(8));
        assert!(!heard.has_changed().unwrap(), "it was announced already");
    }
}
