//! The file in which a node keeps a database's position across restarts.

use crate::position::Position;
use crate::wal::{Cursor, Salt};

/// The record that a node keeps across restarts: a position, and how much of which WAL belongs to
/// it. Its length is constant, so that one write replaces it.
pub(super) fn text(position: Position, cursor: Cursor) -> String {
    format!("{position} {:016x} {:016x}\n", u64::from_be_bytes(cursor.salt()), cursor.offset())
}

/// Reads [`text`]; an empty file is the position zero.
pub(super) fn parse(text: &str) -> (Position, Salt, u64) {
    let mut fields = text.split_whitespace();
    let position = fields.next().and_then(|field| field.parse().ok()).unwrap_or_default();
    let mut hex =
        || fields.next().and_then(|field| u64::from_str_radix(field, 16).ok()).unwrap_or_default();
    let (salt, offset) = (hex(), hex());
    (position, salt.to_be_bytes(), offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_written() {
        let position = Position { txid: 9, checksum: 1 << 63 | 5 };
        assert_eq!(parse(&text(position, Cursor::default())), (position, [0; 8], 0));
        assert_eq!(parse(""), (Position::default(), [0; 8], 0));
    }
}
