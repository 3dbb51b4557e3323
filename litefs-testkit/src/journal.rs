//! Undoing a rollback journal that a killed node left behind
//! (<https://www.sqlite.org/fileformat2.html>, section 3, "The Rollback Journal").

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Number of records that stands for "as many as the file holds".
const TO_THE_END: u32 = u32::MAX;
/// Every 200th byte of a page goes into its checksum.
const CHECKSUM_STEP: usize = 200;

/// Header of one of the journal's segments.
#[derive(Debug, Clone, Copy)]
struct Header {
    records: u32,
    nonce: u32,
    /// Pages in the database before the transaction.
    pages: u32,
    sector_size: usize,
    page_size: usize,
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let field = |index: usize| be32(bytes.strip_prefix(&MAGIC)?.get(4 * index..)?);
        let header = Self {
            records: field(0)?,
            nonce: field(1)?,
            pages: field(2)?,
            sector_size: field(3)? as usize,
            page_size: field(4)? as usize,
        };
        let size = |size: usize| size.is_power_of_two() && (512..=65_536).contains(&size);
        (size(header.page_size) && size(header.sector_size)).then_some(header)
    }

    fn checksum(&self, page: &[u8]) -> u32 {
        let from_the_end = page.iter().rev().skip(CHECKSUM_STEP - 1).step_by(CHECKSUM_STEP);
        // SQLite starts 200 bytes before the end and never includes the first byte.
        from_the_end.fold(self.nonce, |sum, byte| sum.wrapping_add(u32::from(*byte)))
    }
}

/// Writes the pages in `journal` back to `database` and restores its earlier length.
///
/// A segment without records was not synced: SQLite has not changed the database for it yet.
pub(crate) fn roll_back(journal: &[u8], database: &File) -> io::Result<()> {
    let Some(first) = Header::parse(journal) else { return Ok(()) };
    let mut offset = 0;
    while let Some(header) = journal.get(offset..).and_then(Header::parse) {
        offset += header.sector_size;
        let (end, whole) = play(journal, offset, &header, database)?;
        if !whole {
            break;
        }
        offset = end.next_multiple_of(header.sector_size);
    }
    database.set_len(u64::from(first.pages) * first.page_size as u64)
}

/// Replays one segment; returns where it ends and whether all its records are valid.
fn play(
    journal: &[u8],
    start: usize,
    header: &Header,
    database: &File,
) -> io::Result<(usize, bool)> {
    let length = header.page_size + 8;
    let mut offset = start;
    let mut played = 0;
    while header.records == TO_THE_END || played < header.records {
        let Some(record) = journal.get(offset..offset + length) else {
            return Ok((offset, header.records == TO_THE_END));
        };
        let (pgno, page) = (be32(record).unwrap_or_default(), &record[4..4 + header.page_size]);
        if pgno == 0 || be32(&record[4 + header.page_size..]) != Some(header.checksum(page)) {
            return Ok((offset, false));
        }
        database.write_all_at(page, u64::from(pgno - 1) * header.page_size as u64)?;
        offset += length;
        played += 1;
    }
    Ok((offset, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(records: u32, pages: &[(u32, u8)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for field in [records, 7, 2, 512, 512] {
            bytes.extend_from_slice(&u32::to_be_bytes(field));
        }
        bytes.resize(512, 0);
        for &(pgno, fill) in pages {
            bytes.extend_from_slice(&pgno.to_be_bytes());
            bytes.extend_from_slice(&[fill; 512]);
            // Two bytes of a page of 512 are summed.
            bytes.extend_from_slice(&(7 + 2 * u32::from(fill)).to_be_bytes());
        }
        bytes
    }

    fn database() -> File {
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(&[9; 3 * 512], 0).expect("pages");
        file
    }

    fn page(file: &File, pgno: u64) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, (pgno - 1) * 512).expect("page");
        byte[0]
    }

    #[test]
    fn pages_and_length_come_back() {
        let file = database();
        roll_back(&journal(1, &[(2, 5)]), &file).expect("roll back");
        assert_eq!(
            (page(&file, 1), page(&file, 2), file.metadata().expect("length").len()),
            (9, 5, 1024)
        );
    }

    #[test]
    fn only_valid_records_up_to_the_end_are_replayed() {
        let file = database();
        let mut bytes = journal(TO_THE_END, &[(1, 4), (2, 5)]);
        *bytes.last_mut().expect("bytes") ^= 1;
        roll_back(&bytes, &file).expect("roll back");
        assert_eq!((page(&file, 1), page(&file, 2)), (4, 9));
    }

    #[test]
    fn an_ended_journal_changes_nothing() {
        let file = database();
        roll_back(&[0; 600], &file).expect("roll back");
        assert_eq!(file.metadata().expect("length").len(), 3 * 512);
    }
}
