//! Whether work that went to the primary can have written.

use litefs_rpc::wire::SessionCounters;

use crate::access::{Access, Class};

/// Whether work that went to the primary can have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum MayWrite {
    /// It reads.
    No,
    /// It has written if `total_changes()` has grown.
    Counted,
    /// It may have written although `total_changes()` has not grown, as a change of the schema
    /// does.
    Uncounted,
}

impl MayWrite {
    /// `single`: the work is one statement.
    pub(in crate::connection) fn of(class: Class, single: bool) -> Self {
        match class.access {
            Access::Write if single && class.counts => Self::Counted,
            Access::Write => Self::Uncounted,
            _ => Self::No,
        }
    }

    /// Whether the work may have written. `effects`: the primary's answer.
    pub(in crate::connection) fn may_have_written(self, effects: SessionCounters) -> bool {
        self == Self::Uncounted || effects.total_changes > 0
    }
}
