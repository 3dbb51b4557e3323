//! A transaction as it is sent between nodes, and the bounded history of past ones.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::events::TxData;
use crate::image::{Pages, Undo};
use crate::position::Position;

/// The number of transactions that a node remembers per database.
const MAX_ENTRIES: usize = 4096;
/// The bytes of pages that a node remembers per database.
const MAX_BYTES: usize = 64 << 20;

/// The pages that one transaction changed, or the whole database (LiteFS calls that a snapshot).
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    /// Name of the database.
    pub(crate) database: String,
    /// The position that the receiver must have; `None` for a snapshot, which fits any.
    pub(crate) before: Option<Position>,
    /// The position afterwards.
    pub(crate) after: Position,
    /// Bytes in a page.
    pub(crate) page_size: u32,
    /// Size of the database in pages afterwards.
    pub(crate) commit: u32,
    /// Milliseconds since 1970 at the commit, or when the snapshot was made.
    pub(crate) timestamp_ms: u64,
    /// The changed pages.
    pub(crate) pages: Pages,
}

impl Transaction {
    /// The event for this transaction.
    pub(crate) fn event_data(&self) -> TxData {
        TxData::new(self.after, self.page_size, self.commit, self.timestamp_ms)
    }

    fn bytes(&self) -> usize {
        self.pages.len() * self.page_size as usize
    }
}

struct Entry {
    transaction: Arc<Transaction>,
    undo: Undo,
    undo_page_size: u32,
}

/// The last transactions of a database.
#[derive(Default)]
pub(crate) struct History {
    /// The position before the first entry.
    base: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// What a node at some position needs to catch up.
pub(crate) enum CatchUp {
    /// Nothing: its position is the last one.
    Nothing,
    /// The transaction after its position.
    Next(Arc<Transaction>),
    /// A snapshot: its position is not in this history, or too long ago.
    Snapshot,
}

impl History {
    /// A history that begins at `base`.
    pub(crate) fn from(base: Position) -> Self {
        Self { base, ..Self::default() }
    }

    /// Adds `transaction`, which ends at the present position, and how to undo it.
    pub(crate) fn push(&mut self, transaction: Arc<Transaction>, undo: Undo, undo_page_size: u32) {
        self.bytes += transaction.bytes();
        self.entries.push_back(Entry { transaction, undo, undo_page_size });
        while self.entries.len() > MAX_ENTRIES || (self.bytes > MAX_BYTES && self.entries.len() > 1)
        {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.transaction.bytes();
                self.base = oldest.transaction.after;
            }
        }
    }

    /// What follows `position`.
    pub(crate) fn after(&self, position: Position) -> CatchUp {
        let next = if position == self.base {
            Some(0)
        } else {
            self.entries
                .iter()
                .rposition(|entry| entry.transaction.after == position)
                .map(|index| index + 1)
        };
        match next.map(|index| self.entries.get(index)) {
            None => CatchUp::Snapshot,
            Some(None) => CatchUp::Nothing,
            Some(Some(entry)) => CatchUp::Next(Arc::clone(&entry.transaction)),
        }
    }

    /// Forgets the transactions after `txid` and returns what restores the database as of then:
    /// position, page size, pages and size. `None` if that is further back than the history
    /// reaches.
    pub(crate) fn rewind(&mut self, txid: u64) -> Option<(Position, u32, Undo)> {
        let keep = if txid == self.base.txid {
            0
        } else {
            self.entries.iter().position(|entry| entry.transaction.after.txid == txid)? + 1
        };
        let mut total: Option<(u32, Undo)> = None;
        for entry in self.entries.drain(keep..).rev() {
            self.bytes -= entry.transaction.bytes();
            let (_, undo) = total.get_or_insert_with(Default::default);
            undo.pages.extend(entry.undo.pages);
            undo.commit = entry.undo.commit;
            total = total.map(|(_, undo)| (entry.undo_page_size, undo));
        }
        let position = self.entries.back().map_or(self.base, |entry| entry.transaction.after);
        total.map(|(page_size, undo)| (position, page_size, undo))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    fn step(
        image: &mut Image,
        history: &mut History,
        txid: u64,
        fill: u8,
        commit: u32,
    ) -> Position {
        let pages: Pages = [(commit, vec![fill; 512].into())].into();
        let undo = image.apply(512, &pages, commit);
        let after = Position { txid, checksum: image.checksum() };
        let tx = Transaction {
            database: "app.db".into(),
            before: None,
            after,
            page_size: 512,
            commit,
            timestamp_ms: 0,
            pages,
        };
        history.push(Arc::new(tx), undo, 512);
        after
    }

    #[test]
    fn a_position_of_another_history_needs_a_snapshot() {
        let (mut image, mut history) = (Image::default(), History::default());
        let first = step(&mut image, &mut history, 1, 1, 1);
        let second = step(&mut image, &mut history, 2, 2, 2);
        assert!(matches!(history.after(first), CatchUp::Next(tx) if tx.after == second));
        assert!(matches!(history.after(second), CatchUp::Nothing));
        let other = Position { txid: 2, checksum: first.checksum };
        assert!(matches!(history.after(other), CatchUp::Snapshot));
    }

    #[test]
    fn going_back_restores_the_checksum_of_that_transaction() {
        let (mut image, mut history) = (Image::default(), History::default());
        let first = step(&mut image, &mut history, 1, 1, 1);
        step(&mut image, &mut history, 2, 2, 2);
        step(&mut image, &mut history, 3, 3, 1);
        let (position, page_size, undo) = history.rewind(1).expect("remembered");
        image.apply(page_size, &undo.pages, undo.commit);
        assert_eq!((position, image.checksum()), (first, first.checksum));
        assert!(matches!(history.after(first), CatchUp::Nothing));
    }

    #[test]
    fn the_oldest_transactions_are_forgotten() {
        let (mut image, mut history) = (Image::default(), History::default());
        let first = step(&mut image, &mut history, 1, 1, 1);
        for txid in 2..=MAX_ENTRIES as u64 + 2 {
            step(&mut image, &mut history, txid, txid as u8, 1);
        }
        assert!(matches!(history.after(first), CatchUp::Snapshot));
        assert!(history.rewind(1).is_none());
    }
}
