//! Which primary a node should follow: set by the engine, executed by the replica's thread.

use crate::wire::Peer;

/// Which primary to follow, set by the engine and executed by the replica's thread.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    pub(super) primary: Option<Peer>,
    /// Whether to recover the files first, as after a demotion.
    pub(super) recover: bool,
    /// Counts the assignments.
    pub(super) generation: u64,
    /// The last assignment that the thread has finished.
    pub(super) done: u64,
}

impl Assignment {
    /// Follow `primary`, or no node.
    pub(super) fn to(primary: Option<Peer>) -> Self {
        Self { primary, recover: true, ..Self::default() }
    }

    /// Stop: the node is about to become primary.
    pub(super) fn parked() -> Self {
        Self::default()
    }

    /// Whether the thread has nothing left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.done == self.generation
    }

    pub(super) fn primary(&self) -> Option<&Peer> {
        self.primary.as_ref()
    }

    pub(super) fn replace(&mut self, new: Self) {
        *self = Self { generation: self.generation + 1, done: self.done, ..new };
    }
}
