//! The position of a database in its history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A database's position: the last transaction and the checksum of the whole database after it.
///
/// Its text form is that of LiteFS's `<db>-pos` file without the newline: two fields of 16
/// lower-case hexadecimal digits, `0000000000000006/c8d7f2c43a9c38cb`. Two positions are in the
/// same history only if both fields agree: after a failover a transaction number can recur with
/// another checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Number of the last transaction, from 1; 0 for a database that has none yet.
    pub txid: u64,
    /// LTX checksum of the database after that transaction; 0 for a database that has none yet.
    pub checksum: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{:016x}", self.txid, self.checksum)
    }
}

/// The text was not of the form `<16 hex digits>/<16 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position: {0:?}")]
pub struct ParsePositionError(String);

impl FromStr for Position {
    type Err = ParsePositionError;

    /// Reads the text form; one newline at the end is allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let field = |part: &str| {
            let hex = part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let position =
            text.strip_suffix('\n').unwrap_or(text).split_once('/').and_then(|(txid, checksum)| {
                Some(Self { txid: field(txid)?, checksum: field(checksum)? })
            });
        position.ok_or_else(|| ParsePositionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_and_read_as_in_the_pos_file() {
        let position = Position { txid: 6, checksum: 0xc8d7_f2c4_3a9c_38cb };
        assert_eq!(position.to_string(), "0000000000000006/c8d7f2c43a9c38cb");
        assert_eq!("0000000000000006/c8d7f2c43a9c38cb\n".parse(), Ok(position));
    }

    #[test]
    fn text_that_is_not_a_position_is_refused() {
        for text in [
            "",
            "6/7",
            "0000000000000006",
            "000000000000000g/c8d7f2c43a9c38cb",
            "+000000000000006/0000000000000001",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
