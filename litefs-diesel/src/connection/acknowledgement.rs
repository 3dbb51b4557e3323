//! Remembering what was acknowledged, so that its loss can be told.

use litefs_core::{Position, Role};
use litefs_rpc::wire::RequestId;

use super::LiteFsConnection;
use crate::loss::ack_log::{Acknowledged, Acknowledgement};
use crate::node::Node;

impl LiteFsConnection {
    /// What this connection's last write was acknowledged with; `None` before the first one, and
    /// where there is no LiteFS.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.acknowledgement
    }

    /// Remembers what is to be found in every later primary's history. Where the role has changed
    /// since the answer came, the name is that of the next one; the write's own name finds it all
    /// the same.
    pub(super) fn note_acknowledged(
        &mut self,
        node: &Node,
        position: Option<Position>,
        request: Option<RequestId>,
        generation: u64,
    ) {
        let Some(position) = position else { return };
        self.acknowledgement = Some(Acknowledgement { position, request });
        let primary = match node.tracker.role() {
            Role::Replica { primary } => Some(primary),
            _ => None,
        };
        node.ack_log.note(Acknowledged { primary, position, request, term: None, generation });
    }
}

/// The same for a write on this node's own file. It has no name, so its place in the terms has to
/// find it.
pub(super) fn note_local(node: &Node, position: Position, generation: u64) {
    node.ack_log.note(Acknowledged {
        primary: None,
        position,
        request: None,
        // Of the role under which it was proven, or of a later one that cannot have it any earlier.
        term: node.tracker.subscribe().borrow().term_start,
        generation,
    });
}
