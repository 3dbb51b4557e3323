//! Reading SQLite's write-ahead log (<https://www.sqlite.org/walformat.html>, sections 2 to 2.3).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::image::{Page, Pages};

/// Bytes of the WAL's header.
pub(crate) const HEADER_SIZE: u64 = 32;
/// Bytes of the header of each frame.
pub(crate) const FRAME_HEADER_SIZE: usize = 24;
const MAGIC_LITTLE_ENDIAN: u32 = 0x377f_0682;
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;

/// The salts of a WAL's header and its frames. They change when SQLite restarts the WAL.
pub(crate) type Salt = [u8; 8];
type Sums = (u32, u32);

/// The WAL and the offset up to which commits have been captured. The default is "nothing of any
/// WAL".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    salt: Salt,
    offset: u64,
    sums: Sums,
}

impl Cursor {
    /// The salts of the WAL that the offset is in.
    pub(crate) fn salt(&self) -> Salt {
        self.salt
    }

    /// Bytes of the WAL that belong to captured transactions.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Committed frames found beyond a cursor.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The last version of each page.
    pub(crate) pages: Pages,
    /// Size of the database in pages after the last commit.
    pub(crate) commit: u32,
    /// Bytes in a page.
    pub(crate) page_size: u32,
    /// Where the next capture begins.
    pub(crate) cursor: Cursor,
    /// Whether the WAL was restarted since the cursor, so that it holds nothing before these
    /// frames.
    pub(crate) restarted: bool,
}

struct Header {
    big_endian: bool,
    page_size: u32,
    salt: Salt,
    sums: Sums,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The WAL's checksum over `bytes`, a multiple of 8 long.
fn checksum(big_endian: bool, bytes: &[u8], (mut s0, mut s1): Sums) -> Sums {
    let word = |chunk: &[u8]| {
        let word = be32(chunk, 0);
        if big_endian { word } else { word.swap_bytes() }
    };
    for pair in bytes.chunks_exact(8) {
        s0 = s0.wrapping_add(word(&pair[..4])).wrapping_add(s1);
        s1 = s1.wrapping_add(word(&pair[4..])).wrapping_add(s0);
    }
    (s0, s1)
}

impl Header {
    fn parse(bytes: &[u8; HEADER_SIZE as usize]) -> Option<Self> {
        let big_endian = match be32(bytes, 0) {
            MAGIC_LITTLE_ENDIAN => false,
            MAGIC_BIG_ENDIAN => true,
            _ => return None,
        };
        let sums = checksum(big_endian, &bytes[..24], (0, 0));
        let mut salt = Salt::default();
        salt.copy_from_slice(&bytes[16..24]);
        let page_size = be32(bytes, 8);
        let sound = sums == (be32(bytes, 24), be32(bytes, 28))
            && page_size.is_power_of_two()
            && (512..=65_536).contains(&page_size);
        sound.then_some(Self { big_endian, page_size, salt, sums })
    }

    fn read(wal: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_SIZE as usize];
        match wal.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes of `wal` a restarted node may keep: those of the transactions in `captured`, if
/// it is the same WAL.
pub(crate) fn kept_bytes(wal: &File, salt: Salt, offset: u64) -> io::Result<u64> {
    Ok(Header::read(wal)?.filter(|header| header.salt == salt).map_or(0, |_| offset))
}

/// The transactions committed in `wal` beyond `cursor`, merged into one; `None` if there are none.
///
/// Valid frames after the last commit belong to a transaction that was rolled back or is not
/// finished: they are left for the next scan, as SQLite may overwrite them.
pub(crate) fn committed(wal: &File, cursor: Cursor) -> io::Result<Option<Committed>> {
    let Some(header) = Header::read(wal)? else { return Ok(None) };
    let restarted = cursor.offset == 0 || cursor.salt != header.salt;
    let (mut offset, mut sums) =
        if restarted { (HEADER_SIZE, header.sums) } else { (cursor.offset, cursor.sums) };
    let (mut pending, mut found) = (BTreeMap::<u32, Page>::new(), None::<Committed>);
    let mut frame = vec![0; FRAME_HEADER_SIZE + header.page_size as usize];
    while read_frame(wal, &mut frame, offset)? {
        let (head, data) = frame.split_at(FRAME_HEADER_SIZE);
        sums = checksum(header.big_endian, data, checksum(header.big_endian, &head[..8], sums));
        if head[8..16] != header.salt || sums != (be32(head, 16), be32(head, 20)) {
            break;
        }
        offset += frame.len() as u64;
        pending.insert(be32(head, 0), data.into());
        let commit = be32(head, 4);
        if commit != 0 {
            let mut pages = found.take().map(|found| found.pages).unwrap_or_default();
            pages.append(&mut pending);
            let cursor = Cursor { salt: header.salt, offset, sums };
            found =
                Some(Committed { pages, commit, page_size: header.page_size, cursor, restarted });
        }
    }
    Ok(found)
}

/// Whether a whole frame could be read at `offset`.
fn read_frame(wal: &File, frame: &mut [u8], offset: u64) -> io::Result<bool> {
    match wal.read_exact_at(frame, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a write of `data` to the WAL at `offset` is the header of a commit frame.
pub(crate) fn is_commit_header(offset: usize, data: &[u8]) -> bool {
    offset as u64 >= HEADER_SIZE && data.len() == FRAME_HEADER_SIZE && be32(data, 4) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    struct Writer {
        file: File,
        offset: u64,
        sums: Sums,
        salt: Salt,
    }

    impl Writer {
        fn new(salt: u8) -> Self {
            let mut head = Vec::new();
            for word in [MAGIC_LITTLE_ENDIAN, 3_007_000, PAGE as u32, 0] {
                head.extend_from_slice(&word.to_be_bytes());
            }
            head.extend_from_slice(&[salt; 8]);
            let sums = checksum(false, &head, (0, 0));
            head.extend_from_slice(&sums.0.to_be_bytes());
            head.extend_from_slice(&sums.1.to_be_bytes());
            let file = tempfile::tempfile().expect("temporary file");
            file.write_all_at(&head, 0).expect("header");
            Self { file, offset: HEADER_SIZE, sums, salt: [salt; 8] }
        }

        fn frame(&mut self, pgno: u32, fill: u8, commit: u32) {
            let mut frame = [pgno.to_be_bytes(), commit.to_be_bytes()].concat();
            let data = [fill; PAGE];
            self.sums = checksum(false, &data, checksum(false, &frame, self.sums));
            frame.extend_from_slice(&self.salt);
            frame.extend_from_slice(&self.sums.0.to_be_bytes());
            frame.extend_from_slice(&self.sums.1.to_be_bytes());
            frame.extend_from_slice(&data);
            self.file.write_all_at(&frame, self.offset).expect("frame");
            self.offset += frame.len() as u64;
        }
    }

    #[test]
    fn the_last_version_of_each_committed_page_is_found() {
        let mut wal = Writer::new(7);
        wal.frame(1, 1, 0);
        wal.frame(2, 2, 2);
        wal.frame(1, 3, 2);
        let found = committed(&wal.file, Cursor::default()).expect("read").expect("commits");
        assert_eq!((found.commit, found.pages[&1][0], found.pages[&2][0]), (2, 3, 2));
        assert_eq!(found.cursor.offset(), wal.offset);
    }

    #[test]
    fn frames_after_the_last_commit_are_left_for_later() {
        let mut wal = Writer::new(7);
        wal.frame(1, 1, 1);
        let end = wal.offset;
        wal.frame(2, 2, 0);
        let found = committed(&wal.file, Cursor::default()).expect("read").expect("one commit");
        assert_eq!((found.cursor.offset(), found.pages.len()), (end, 1));
        assert!(committed(&wal.file, found.cursor).expect("read").is_none());
        wal.frame(3, 3, 3);
        let found = committed(&wal.file, found.cursor).expect("read").expect("second commit");
        assert_eq!(found.pages.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert!(!found.restarted);
    }

    #[test]
    fn a_restarted_wal_is_read_from_its_start() {
        let mut old = Writer::new(7);
        old.frame(1, 1, 1);
        let cursor = committed(&old.file, Cursor::default()).expect("read").expect("commit").cursor;
        let mut new = Writer::new(8);
        new.frame(1, 5, 1);
        let found = committed(&new.file, cursor).expect("read").expect("commit");
        assert!(found.restarted && found.pages[&1][0] == 5);
    }

    #[test]
    fn a_frame_with_a_wrong_checksum_ends_the_log() {
        let mut wal = Writer::new(7);
        wal.frame(1, 1, 1);
        let end = wal.offset;
        wal.frame(1, 2, 1);
        wal.file.write_all_at(&[0xff], end + 100).expect("damage");
        let found = committed(&wal.file, Cursor::default()).expect("read").expect("first commit");
        assert_eq!((found.cursor.offset(), found.pages[&1][0]), (end, 1));
    }
}
