//! The responses to clients, to be compared with the stored rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::Resource;

/// A client's knowledge of a row that it posted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known {
    /// The last acknowledged state.
    Present(Resource),
    /// Deleted, and acknowledged.
    Deleted,
    /// A write's outcome is unknown: the row may have any state, but may not exist twice.
    Unknown,
}

/// The log of one client, or of all of them.
#[derive(Debug, Default)]
pub(super) struct AckLog {
    /// Ids of downloaded rows that a GET has returned.
    pub(super) kept: BTreeSet<String>,
    /// Posted rows by their client keys.
    pub(super) rows: BTreeMap<String, Known>,
}

impl AckLog {
    /// Adds another client's log. Keys are unique among clients.
    pub(super) fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.rows.extend(other.rows);
    }

    /// The number of acknowledged writes that must be stored.
    pub(super) fn acknowledged(&self) -> usize {
        self.kept.len() + self.rows.values().filter(|known| **known != Known::Unknown).count()
    }
}
