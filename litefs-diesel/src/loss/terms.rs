//! The terms that a history is made of.
//!
//! Positions compare within one history. Which history a file is in follows from where the terms in
//! it began: each primary has of the ones before it what lies up to its own beginning, and nothing
//! beyond. So the tracking table's row remembers them, and replicates with the data that they
//! explain.

use std::fmt;

use litefs_core::Position;

/// The time of one primary, as the row remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) node: String,
    /// What lies up to here it has of those before it; what lies beyond is its own.
    pub(crate) term_start: Position,
}

/// `node@position`
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.term_start)
    }
}

/// Reigns in the row, oldest first, in this many bytes: some forty.
pub(crate) const REIGNS: usize = 2_048;

/// The oldest one may be cut in the middle.
pub(crate) fn parse_reigns(text: &str) -> Vec<Term> {
    let parse = |word: &str| {
        let (node, term_start) = word.rsplit_once('@')?;
        Some(Term { node: node.into(), term_start: term_start.parse().ok()? })
    };
    text.split(' ').filter_map(parse).collect()
}
