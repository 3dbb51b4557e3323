//! The promises that a run can break on purpose.

use clap::ValueEnum;

/// A promise broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Weakness {
    /// No outcomes are stored, and clients repeat writes whose outcome is unknown: some are applied
    /// twice.
    RetryUnknown,
    /// Nodes acknowledge when SQLite has committed, and LiteFS drops many commits: some writes are
    /// lost without a report.
    Proof,
    /// Nodes read the local file as it is, while the checker still expects acknowledged writes:
    /// some reads are stale.
    Eventual,
}
