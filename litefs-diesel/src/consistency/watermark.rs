//! The positions that later reads must have reached.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use litefs_core::{Position, Txid};

/// The position of an acknowledged write, and the primary that acknowledged it. Positions compare
/// within one primary's history only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    /// The primary's name; `None` for a position from another process.
    pub(crate) primary: Option<String>,
}

/// The newest acknowledged write of each primary: one, and for a moment after a failover two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks(Vec<Mark>);

/// The most histories at a time. Beyond this the oldest mark is dropped.
const MAX_HISTORIES: usize = 4;

impl Marks {
    pub(crate) fn add(&mut self, mark: Mark) {
        if let Some(known) = self.0.iter_mut().find(|known| known.primary == mark.primary) {
            if known.position.txid < mark.position.txid {
                known.position = mark.position;
            }
            return;
        }
        if self.0.len() == MAX_HISTORIES {
            self.0.remove(0);
        }
        self.0.push(mark);
    }

    /// The highest TXID of the marks.
    pub(crate) fn highest(&self) -> Txid {
        self.0.iter().map(|mark| mark.position.txid).max().unwrap_or(Txid::new(0))
    }

    /// The highest mark's position.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.0.iter().map(|mark| mark.position).max_by_key(|position| position.txid)
    }

    /// Whether all marks are `primary`'s.
    pub(crate) fn all_of(&self, primary: &str) -> bool {
        self.0.iter().all(|mark| mark.primary.as_deref() == Some(primary))
    }

    /// Moves every mark into `primary`'s history, which is at `now`. Transactions beyond are not in
    /// it and will never arrive.
    pub(crate) fn rebase(&mut self, primary: &str, now: Position) {
        let highest = self.highest();
        let position = if highest > now.txid {
            now
        } else {
            Position { txid: highest, checksum: now.checksum }
        };
        self.0 = vec![Mark { position, primary: Some(primary.into()) }];
    }
}

/// The marks that all of a process's connections must see.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    /// The highest TXID of the marks, readable without the lock.
    highest: AtomicU64,
    marks: Mutex<Marks>,
}

impl Watermark {
    /// One atomic load.
    #[inline]
    pub(crate) fn highest(&self) -> Txid {
        Txid::new(self.highest.load(Ordering::Acquire))
    }

    pub(crate) fn add(&self, mark: Mark) {
        self.change(|marks| marks.add(mark));
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks.lock().expect("no code panics while it holds the marks").clone()
    }

    /// Replaces the marks `seen` by those that remain of them in the current history, unless newer
    /// marks were added meanwhile.
    pub(crate) fn rebase(&self, seen: &Marks, rebased: &Marks) {
        self.change(|marks| {
            if marks == seen {
                *marks = rebased.clone();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) {
        let mut marks = self.marks.lock().expect("no code panics while it holds the marks");
        change(&mut marks);
        self.highest.store(marks.highest().get(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_core::Checksum;

    fn mark(primary: &str, txid: u64) -> Mark {
        Mark { position: at(txid), primary: Some(primary.into()) }
    }

    fn at(txid: u64) -> Position {
        Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
    }

    #[test]
    fn the_newest_write_of_one_history_counts() {
        let watermark = Watermark::default();
        for txid in [3, 7, 5] {
            watermark.add(mark("a", txid));
        }
        assert_eq!(watermark.highest(), Txid::new(7));
        assert!(watermark.marks().all_of("a"));
    }

    #[test]
    fn r7_a_mark_beyond_the_new_history_is_dropped() {
        let mut marks = Marks::default();
        marks.add(mark("a", 8));
        marks.rebase("b", at(4));
        assert_eq!(marks.highest(), Txid::new(4));
        let mut marks = Marks::default();
        marks.add(mark("a", 8));
        marks.rebase("b", at(9));
        assert_eq!(marks.highest(), Txid::new(8));
        assert!(marks.all_of("b"));
    }

    #[test]
    fn marks_are_bounded_however_many_failovers_there_are() {
        let mut marks = Marks::default();
        for i in 0..100 {
            marks.add(mark(&i.to_string(), i));
        }
        assert_eq!(marks.0.len(), MAX_HISTORIES);
    }

    #[test]
    fn a_write_acknowledged_during_a_rebase_is_kept() {
        let watermark = Watermark::default();
        watermark.add(mark("a", 8));
        let seen = watermark.marks();
        let mut rebased = seen.clone();
        rebased.rebase("b", at(4));
        watermark.add(mark("b", 6));
        watermark.rebase(&seen, &rebased);
        assert_eq!(watermark.highest(), Txid::new(8));
    }
}
