//! The shared memory that SQLite calls the wal-index (<https://www.sqlite.org/walformat.html>,
//! section 2.4).
//!
//! SQLite is given pointers into regions of atomics that live as long as the process: memory that
//! SQLite may still access is never freed, without any unsafe code here. Regions that no connection
//! maps are zeroed and reused, so that a process holds as many as were in use at the same time.

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sync::locked;

/// Bytes in a region; SQLite never asks for another size.
pub(crate) const REGION_SIZE: usize = 32_768;
/// Words of one of the two copies of the header.
const HEADER_WORDS: usize = 12;
const CHANGE_WORD: usize = 2;
/// `isInit`, `bigEndCksum` (bytes) and `szPage` (a 16-bit field).
const INIT_WORD: usize = 3;
const MAX_FRAME_WORD: usize = 4;
const PAGE_COUNT_WORD: usize = 5;
const FRAME_CHECKSUM_WORD: usize = 6;
const HEADER_CHECKSUM_WORD: usize = 10;
/// `nBackfill`, behind the two copies of the header.
const BACKFILL_WORD: usize = 2 * HEADER_WORDS;
/// The five read marks follow `nBackfill`; `nBackfillAttempted` comes after 8 bytes of locks.
const READ_MARK_WORD: usize = BACKFILL_WORD + 1;
const BACKFILL_ATTEMPTED_WORD: usize = READ_MARK_WORD + 5 + 2;
const READ_MARK_NOT_USED: u32 = u32::MAX;
/// `WALINDEX_MAX_VERSION`.
const VERSION: u32 = 3_007_000;

type Region = [AtomicU32; REGION_SIZE / 4];

static FREE: Mutex<Vec<&'static Region>> = Mutex::new(Vec::new());

fn take_region() -> &'static Region {
    if let Some(region) = locked(&FREE).pop() {
        region.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        return region;
    }
    Box::leak(Box::new([const { AtomicU32::new(0) }; REGION_SIZE / 4]))
}

/// The regions of one database on one node.
#[derive(Debug, Default)]
pub(crate) struct WalIndex {
    regions: Vec<&'static Region>,
    /// Connections that have it mapped.
    mapped: usize,
}

impl WalIndex {
    /// Another connection maps the index.
    pub(crate) fn attach(&mut self) {
        self.mapped += 1;
    }

    /// A connection unmaps the index; the last one returns the regions.
    pub(crate) fn detach(&mut self) {
        self.mapped = self.mapped.saturating_sub(1);
        if self.mapped == 0 {
            locked(&FREE).append(&mut self.regions);
        }
    }

    /// The address of a region; created if `extend`.
    pub(crate) fn region(&mut self, index: usize, extend: bool) -> Option<NonNull<u8>> {
        while extend && self.regions.len() <= index {
            self.regions.push(take_region());
        }
        self.regions.get(index).map(|region| NonNull::from(*region).cast())
    }

    /// Marks the WAL as empty and the database as changed, as LiteFS does after it has applied a
    /// transaction (`updateSHM` in its `db.go`): open connections see a new header and drop their
    /// caches.
    ///
    /// The caller must hold every lock of the index exclusively.
    pub(crate) fn reset(&self, page_size: u32, page_count: u32) {
        let Some(region) = self.regions.first() else { return };
        let mut header: [u32; HEADER_WORDS] =
            std::array::from_fn(|word| region[word].load(Ordering::Acquire));
        header[0] = VERSION;
        header[CHANGE_WORD] = header[CHANGE_WORD].wrapping_add(1);
        header[INIT_WORD] = init_word(page_size);
        header[MAX_FRAME_WORD] = 0;
        header[PAGE_COUNT_WORD] = page_count;
        header[FRAME_CHECKSUM_WORD..FRAME_CHECKSUM_WORD + 2].fill(0);
        let (s0, s1) = native_checksum(&header[..HEADER_CHECKSUM_WORD]);
        (header[HEADER_CHECKSUM_WORD], header[HEADER_CHECKSUM_WORD + 1]) = (s0, s1);
        for (word, value) in header.iter().enumerate() {
            // Readers compare both copies, the second first written as in SQLite's
            // walIndexWriteHdr.
            region[HEADER_WORDS + word].store(*value, Ordering::SeqCst);
        }
        for (word, value) in header.iter().enumerate() {
            region[word].store(*value, Ordering::SeqCst);
        }
        reset_checkpoint_info(region);
    }
}

/// As SQLite's `walRestartHdr` leaves it: nothing backfilled, only the first two read marks in use.
fn reset_checkpoint_info(region: &Region) {
    region[BACKFILL_WORD].store(0, Ordering::SeqCst);
    region[BACKFILL_ATTEMPTED_WORD].store(0, Ordering::SeqCst);
    for mark in 0..5 {
        let value = if mark < 2 { 0 } else { READ_MARK_NOT_USED };
        region[READ_MARK_WORD + mark].store(value, Ordering::SeqCst);
    }
}

/// `isInit` = 1, `bigEndCksum` as the machine is, `szPage` with 1 for 65536, in memory order.
fn init_word(page_size: u32) -> u32 {
    let size = ((page_size & 0xff00) | (page_size >> 16)) as u16;
    let [low, high] = size.to_ne_bytes();
    u32::from_ne_bytes([1, u8::from(cfg!(target_endian = "big")), low, high])
}

/// The WAL checksum in the machine's own byte order.
fn native_checksum(words: &[u32]) -> (u32, u32) {
    words.chunks_exact(2).fold((0, 0), |(s0, s1): (u32, u32), pair| {
        let s0 = s0.wrapping_add(pair[0]).wrapping_add(s1);
        (s0, s1.wrapping_add(pair[1]).wrapping_add(s0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_after_the_last_connection_unmaps() {
        let mut index = WalIndex::default();
        index.attach();
        assert!(index.region(0, false).is_none());
        assert!(index.region(0, true).is_some());
        index.reset(4096, 7);
        assert_eq!(index.regions[0][PAGE_COUNT_WORD].load(Ordering::Relaxed), 7);
        index.detach();
        let region = take_region();
        assert!(region.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn each_reset_writes_two_equal_headers_with_a_new_counter() {
        let mut index = WalIndex::default();
        index.attach();
        index.region(0, true);
        index.reset(65_536, 3);
        let word = |at: usize| index.regions[0][at].load(Ordering::Relaxed);
        let first = word(CHANGE_WORD);
        index.reset(65_536, 3);
        assert_eq!(word(CHANGE_WORD), first + 1);
        assert!((0..HEADER_WORDS).all(|at| word(at) == word(HEADER_WORDS + at)));
        assert_eq!(word(INIT_WORD).to_ne_bytes()[2..], 1u16.to_ne_bytes());
    }
}
