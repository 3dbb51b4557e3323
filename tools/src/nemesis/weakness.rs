//! The promises that a run can break on purpose.

use clap::ValueEnum;

/// A promise broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Weakness {
    /// No outcomes are kept, and clients repeat writes whose outcome is unknown: some will be there
    /// twice.
    RetryUnknown,
    /// Nodes take SQLite's word for a commit, and LiteFS drops many: some writes will be gone
    /// without a report.
    Proof,
    /// Nodes read whatever is there, while the checker goes on demanding what they wrote: some
    /// reads will be stale.
    Eventual,
}
