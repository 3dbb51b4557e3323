//! Where a database is: [`Txid`], [`Checksum`] and the pair of them, [`Position`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hexadecimal digits of one half of a position.
const DIGITS: usize = 16;

const FORMAT: &str = "; a position is written as 0000000000000006/c8d7f2c43a9c38cb \
                      (TXID/checksum), each half in 16 lower-case hexadecimal digits";

/// Why a text is not a [`Txid`], a [`Checksum`] or a [`Position`].
///
/// A position token comes from outside (a cookie, a header, a file), so parsing is strict:
/// upper-case digits, signs, spaces and missing zeros are all refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePositionError {
    /// The text is shorter or longer than the format allows.
    #[error("expected {expected} characters, found {found}{FORMAT}")]
    Length {
        /// Length of the format, in bytes.
        expected: usize,
        /// Length of the text, in bytes.
        found: usize,
    },
    /// The byte at this index is not one of `0-9a-f`.
    #[error("not a lower-case hexadecimal digit: byte {at}{FORMAT}")]
    Digit {
        /// Zero-based index into the half being parsed.
        at: usize,
    },
    /// TXID and checksum are not separated by `/`.
    #[error("no '/' after the TXID{FORMAT}")]
    Separator,
}

fn parse_hex(text: &[u8]) -> Result<u64, ParsePositionError> {
    if text.len() != DIGITS {
        return Err(ParsePositionError::Length { expected: DIGITS, found: text.len() });
    }
    text.iter().enumerate().try_fold(0, |value, (at, byte)| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return Err(ParsePositionError::Digit { at }),
        };
        Ok(value << 4 | u64::from(digit))
    })
}

/// The two halves of a position look alike: sixteen lower-case hexadecimal digits around one `u64`.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParsePositionError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text.as_bytes()).map(Self)
            }
        }
    };
}

hex_id! {
    /// A LiteFS transaction id: one more for each committed write transaction of one database.
    ///
    /// Written as sixteen lower-case hexadecimal digits (LiteFS: `ltx.TXID`). Zero means "no
    /// transaction yet". It grows within one history only: after a failover it may go back.
    Txid
}

hex_id! {
    /// LiteFS's rolling checksum of the whole database after a transaction (LiteFS:
    /// `ltx.Checksum`).
    ///
    /// Written as sixteen lower-case hexadecimal digits. It distinguishes two histories that share
    /// a [`Txid`].
    Checksum
}

/// A point in the history of one database: the last applied transaction and the checksum after it.
///
/// Written as `0000000000000006/c8d7f2c43a9c38cb`, the content of LiteFS's `<db>-pos` file
/// (`fuse/pos_node.go`) without its newline. Not ordered: two positions compare within one history
/// only, and a failover starts a new one.
///
/// ```
/// # use litefs_core::Position;
/// let position: Position = "0000000000000006/c8d7f2c43a9c38cb".parse()?;
/// assert_eq!(position.txid.get(), 6);
/// assert_eq!(position.to_string(), "0000000000000006/c8d7f2c43a9c38cb");
/// # Ok::<(), litefs_core::ParsePositionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The last transaction applied.
    pub txid: Txid,
    /// The database's checksum after it.
    pub checksum: Checksum,
}

impl Position {
    /// Length of the written form, in bytes.
    pub const TEXT_LEN: usize = 2 * DIGITS + 1;

    /// Puts the two halves together.
    #[must_use]
    pub const fn new(txid: Txid, checksum: Checksum) -> Self {
        Self { txid, checksum }
    }

    pub(crate) fn from_bytes(text: &[u8]) -> Result<Self, ParsePositionError> {
        if text.len() != Self::TEXT_LEN {
            return Err(ParsePositionError::Length { expected: Self::TEXT_LEN, found: text.len() });
        }
        let (txid, rest) = text.split_at(DIGITS);
        let checksum = rest.strip_prefix(b"/").ok_or(ParsePositionError::Separator)?;
        Ok(Self { txid: Txid(parse_hex(txid)?), checksum: Checksum(parse_hex(checksum)?) })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.txid, self.checksum)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_token_is_parsed_strictly() {
        let good = "0000000000000006/c8d7f2c43a9c38cb";
        assert_eq!(good.parse::<Position>().unwrap().to_string(), good);
        let bad = [
            "",
            "6/c8d7f2c43a9c38cb",
            "0000000000000006/C8D7F2C43A9C38CB",
            "0000000000000006-c8d7f2c43a9c38cb",
            "0000000000000006/c8d7f2c43a9c38cb\n",
            " 000000000000006/c8d7f2c43a9c38cb",
            "+000000000000006/c8d7f2c43a9c38cb",
            "000000000000000\u{e9}c8d7f2c43a9c38cb",
        ];
        for text in bad {
            assert!(text.parse::<Position>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn what_is_no_position_is_told_the_format() {
        let format = "; a position is written as 0000000000000006/c8d7f2c43a9c38cb \
                      (TXID/checksum), each half in 16 lower-case hexadecimal digits";
        let position = |text: &str| text.parse::<Position>().unwrap_err();
        let errors = [
            (position("6/c8d7f2c43a9c38cb"), "expected 33 characters, found 18"),
            (position("0000000000000006-c8d7f2c43a9c38cb"), "no '/' after the TXID"),
            (
                position("0000000000000006/C8d7f2c43a9c38cb"),
                "not a lower-case hexadecimal digit: byte 0",
            ),
            ("7".parse::<Txid>().unwrap_err(), "expected 16 characters, found 1"),
        ];
        for (error, what) in errors {
            assert_eq!(error.to_string(), format!("{what}{format}"));
        }
    }

    #[test]
    fn a_txid_travels_as_a_plain_number() {
        assert_eq!(serde_json::to_string(&Txid::new(7)).unwrap(), "7");
    }

    proptest::proptest! {
        #[test]
        fn every_position_survives_its_written_form(txid: u64, checksum: u64) {
            let position = Position::new(Txid::new(txid), Checksum::new(checksum));
            proptest::prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Position>();
        }
    }
}
