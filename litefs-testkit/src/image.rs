//! A database's pages in memory and their LTX checksum.
//!
//! The image holds the pages as of the last captured transaction. Snapshots, undo and checksums are
//! computed from it, so that they do not race with SQLite's checkpoints. Pages are shared with the
//! transactions in the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc::{CRC_64_GO_ISO, Crc, Table};

/// A page's bytes.
pub(crate) type Page = Arc<[u8]>;
/// Pages by number; the first page of a database is number 1.
pub(crate) type Pages = BTreeMap<u32, Page>;

/// Set in every LTX checksum, so that zero can mean "none" (LTX's `checksum.go`).
const CHECKSUM_FLAG: u64 = 1 << 63;
const CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);
/// SQLite never uses the page that holds this byte (<https://www.sqlite.org/fileformat2.html>,
/// section 1.4).
const PENDING_BYTE: u64 = 0x4000_0000;
/// Offset in page 1 of the write version: 1 for rollback journals, 2 for WAL.
const WRITE_VERSION_OFFSET: usize = 18;

/// The LTX checksum of one page: CRC-64/GO-ISO over the big-endian page number and the page.
fn page_checksum(pgno: u32, data: &[u8]) -> u64 {
    let mut digest = CRC.digest();
    digest.update(&pgno.to_be_bytes());
    digest.update(data);
    digest.finalize() | CHECKSUM_FLAG
}

/// The page size in a database header's bytes 16 and 17, or 0 if these are not a page size.
pub(crate) fn page_size_of(header: &[u8]) -> u32 {
    let Some(bytes) = header.get(16..18) else { return 0 };
    match u16::from_be_bytes([bytes[0], bytes[1]]) {
        1 => 65_536,
        size if size >= 512 && size.is_power_of_two() => u32::from(size),
        _ => 0,
    }
}

/// The undo record of a transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undo {
    /// Earlier content of the pages that were changed or cut off.
    pub(crate) pages: Pages,
    /// Earlier size in pages.
    pub(crate) commit: u32,
}

/// All pages of one database and the running checksum.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    page_size: u32,
    pages: Vec<Page>,
    checksums: Vec<u64>,
    sum: u64,
}

impl Image {
    /// The image of a whole database file; a torn last page is ignored.
    pub(crate) fn from_file(bytes: &[u8]) -> Self {
        let page_size = page_size_of(bytes);
        let mut image = Self::default();
        if page_size > 0 {
            let pages: Pages =
                (1..).zip(bytes.chunks_exact(page_size as usize).map(Page::from)).collect();
            image.apply(page_size, &pages, pages.len() as u32);
        }
        image
    }

    /// Bytes in a page; 0 while there is none.
    pub(crate) fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Size in pages.
    pub(crate) fn len(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The LTX checksum of the database; 0 while it has no page.
    pub(crate) fn checksum(&self) -> u64 {
        if self.pages.is_empty() { 0 } else { self.sum | CHECKSUM_FLAG }
    }

    /// Whether page 1 says that the database is in WAL mode.
    pub(crate) fn is_wal(&self) -> bool {
        self.pages.first().is_some_and(|page| is_wal_page(page))
    }

    /// One page, numbered from 1.
    pub(crate) fn page(&self, pgno: u32) -> Option<&Page> {
        self.pages.get((pgno as usize).checked_sub(1)?)
    }

    /// All pages.
    pub(crate) fn all(&self) -> Pages {
        (1..).zip(self.pages.iter().cloned()).collect()
    }

    /// The pages of `candidates` that differ from the image, within `commit` pages.
    pub(crate) fn changed(&self, candidates: Pages, commit: u32) -> Pages {
        let differs = |pgno: u32, page: &Page| pgno <= commit && self.page(pgno) != Some(page);
        candidates.into_iter().filter(|(pgno, page)| differs(*pgno, page)).collect()
    }

    /// Writes `pages` into the image and sets its size to `commit` pages; returns what was there
    /// before.
    pub(crate) fn apply(&mut self, page_size: u32, pages: &Pages, commit: u32) -> Undo {
        let mut undo = Undo { pages: Pages::new(), commit: self.len() };
        self.page_size = page_size;
        self.resize(commit, &mut undo);
        for (&pgno, page) in pages.range(1..=commit) {
            self.put(pgno, page, &mut undo);
        }
        undo
    }

    fn resize(&mut self, commit: u32, undo: &mut Undo) {
        while self.len() > commit {
            let pgno = self.len();
            if let (Some(page), Some(checksum)) = (self.pages.pop(), self.checksums.pop()) {
                self.sum ^= checksum;
                undo.pages.insert(pgno, page);
            }
        }
        let empty: Page = vec![0; self.page_size as usize].into();
        while self.len() < commit {
            let checksum = self.checksum_of(self.len() + 1, &empty);
            self.pages.push(Arc::clone(&empty));
            self.checksums.push(checksum);
            self.sum ^= checksum;
        }
    }

    fn put(&mut self, pgno: u32, page: &Page, undo: &mut Undo) {
        let index = pgno as usize - 1;
        let checksum = self.checksum_of(pgno, page);
        let earlier = std::mem::replace(&mut self.pages[index], Arc::clone(page));
        self.sum ^= std::mem::replace(&mut self.checksums[index], checksum) ^ checksum;
        if pgno <= undo.commit {
            undo.pages.entry(pgno).or_insert(earlier);
        }
    }

    fn checksum_of(&self, pgno: u32, page: &[u8]) -> u64 {
        let lock_page = PENDING_BYTE / u64::from(self.page_size.max(512)) + 1;
        if u64::from(pgno) == lock_page { 0 } else { page_checksum(pgno, page) }
    }
}

/// Whether this page 1 declares WAL mode.
pub(crate) fn is_wal_page(page: &[u8]) -> bool {
    page.get(WRITE_VERSION_OFFSET) == Some(&2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8) -> Page {
        vec![fill; 512].into()
    }

    fn pages(list: &[(u32, u8)]) -> Pages {
        list.iter().map(|&(pgno, fill)| (pgno, page(fill))).collect()
    }

    #[test]
    fn a_page_checksum_is_crc64_iso_with_the_flag() {
        // Go: crc64.Checksum([]byte{0,0,0,1,'a'}, crc64.MakeTable(crc64.ISO)) | 1<<63, checked bit
        // by bit here.
        let mut crc = u64::MAX;
        for byte in [0u8, 0, 0, 1, b'a'] {
            crc ^= u64::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xD800_0000_0000_0000 } else { crc >> 1 };
            }
        }
        assert_eq!(page_checksum(1, b"a"), !crc | 1 << 63);
    }

    #[test]
    fn the_running_checksum_equals_that_of_a_new_image() {
        let mut image = Image::default();
        image.apply(512, &pages(&[(1, 1), (2, 2), (3, 3)]), 3);
        image.apply(512, &pages(&[(2, 9)]), 2);
        let mut fresh = Image::default();
        fresh.apply(512, &pages(&[(1, 1), (2, 9)]), 2);
        assert_eq!(image.checksum(), fresh.checksum());
        assert_eq!(image.checksum() >> 63, 1);
    }

    #[test]
    fn an_undo_restores_pages_size_and_checksum() {
        let mut image = Image::default();
        image.apply(512, &pages(&[(1, 1), (2, 2), (3, 3)]), 3);
        let before = image.checksum();
        let undo = image.apply(512, &pages(&[(1, 8)]), 1);
        image.apply(512, &undo.pages, undo.commit);
        assert_eq!((image.checksum(), image.len()), (before, 3));
    }

    #[test]
    fn an_empty_image_has_no_checksum() {
        assert_eq!(Image::from_file(&[]).checksum(), 0);
    }
}
