//! What the special files say. Pure functions over bytes from outside.

use std::time::Duration;

use crate::{NodeName, NodeNameError, ParsePositionError, Position};

/// What is wrong with the content of a special file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedFile {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// `.primary` does not hold a node name.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// `<db>-pos` does not hold a position.
    #[error(transparent)]
    Position(#[from] ParsePositionError),
    /// `.lag` does not hold a signed number of milliseconds.
    #[error("it is not a signed number of milliseconds")]
    Lag,
}

/// The node named by `.primary`: `node-a\n` (LiteFS: `fuse/primary_node.go`). The newline may be
/// missing.
///
/// # Errors
///
/// [`MalformedFile`] if this is not one node name.
pub fn parse_primary(bytes: &[u8]) -> Result<NodeName, MalformedFile> {
    let text = std::str::from_utf8(line(bytes)).map_err(|_| MalformedFile::NotText)?;
    Ok(text.parse()?)
}

/// The position in `<db>-pos`: `0000000000000006/c8d7f2c43a9c38cb\n` (LiteFS: `fuse/pos_node.go`).
/// The newline may be missing.
///
/// # Errors
///
/// [`MalformedFile`] if this is not one position.
pub fn parse_position(bytes: &[u8]) -> Result<Position, MalformedFile> {
    Ok(Position::from_bytes(line(bytes))?)
}

/// The lag in `.lag`: `+000000350\n`, milliseconds with a sign (LiteFS: `fuse/lag_node.go`). A
/// negative lag, which clocks that disagree can produce, is none.
///
/// # Errors
///
/// [`MalformedFile`] if this is not a sign and a number.
pub fn parse_lag(bytes: &[u8]) -> Result<Duration, MalformedFile> {
    let text = line(bytes);
    let digits =
        text.strip_prefix(b"+").or_else(|| text.strip_prefix(b"-")).ok_or(MalformedFile::Lag)?;
    let text = std::str::from_utf8(digits).map_err(|_| MalformedFile::NotText)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedFile::Lag);
    }
    let millis = text.parse().map_err(|_| MalformedFile::Lag)?;
    Ok(if bytes.starts_with(b"-") { Duration::ZERO } else { Duration::from_millis(millis) })
}

fn line(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}
