//! What clients have been told, to be held against what is stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::Resource;

/// What a client knows of a row that it posted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known {
    /// The last acknowledged state.
    Present(Resource),
    /// Deleted, and acknowledged.
    Deleted,
    /// A write's outcome is unknown: anything goes, but not twice.
    Unknown,
}

/// One client's memory, or that of all of them.
#[derive(Debug, Default)]
pub(super) struct AckLog {
    /// Ids of downloaded rows that some GET has answered with.
    pub(super) kept: BTreeSet<String>,
    /// Posted rows by their client keys.
    pub(super) rows: BTreeMap<String, Known>,
}

impl AckLog {
    /// Adds another client's memory. Keys are unique among clients.
    pub(super) fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.rows.extend(other.rows);
    }

    /// How many writes were acknowledged and are to be found.
    pub(super) fn acknowledged(&self) -> usize {
        self.kept.len() + self.rows.values().filter(|known| **known != Known::Unknown).count()
    }
}
