//! The terms that a history is made of.
//!
//! Positions compare within one history. The starts of the terms say which history a file is in:
//! each primary has the transactions of earlier primaries up to the start of its own term, and none
//! beyond. So the tracking table's row contains the terms, and is replicated with the data.

use std::fmt;

use litefs_core::Position;

/// One term, as it is in the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) node: String,
    /// Transactions up to here are of earlier terms, later ones of this term.
    pub(crate) term_start: Position,
}

/// `node@position`
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.term_start)
    }
}

/// How many bytes of terms the row contains, oldest first: some forty terms.
pub(crate) const TERMS_BYTES: usize = 2_048;

/// Reads the terms. The oldest may be truncated, and is left out then.
pub(crate) fn parse_terms(text: &str) -> Vec<Term> {
    let parse = |word: &str| {
        let (node, term_start) = word.rsplit_once('@')?;
        Some(Term { node: node.into(), term_start: term_start.parse().ok()? })
    };
    text.split(' ').filter_map(parse).collect()
}
