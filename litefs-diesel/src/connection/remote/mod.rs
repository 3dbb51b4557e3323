//! The primary, as a connection sees it: how work gets there and what comes back.

mod channel;
pub(super) mod commit;
mod outcome;
pub(super) mod session;
mod span;
mod write;

use std::sync::Arc;

use litefs_core::{Role, RoleKind, RoleStamp};
use litefs_rpc::client::{self, CallError, Fate};
use litefs_rpc::wire::{Delivery, ProtocolVersion, ServerError};

use self::channel::Channel;
use crate::node::Node;

/// The connection's way to the primary.
pub(super) struct Remote {
    /// `None`: not on LiteFS, everything is local.
    node: Option<Arc<Node>>,
    /// The connection to the primary that was used last, and the role it was used in.
    connection: Option<(RoleStamp, Arc<client::Connection>)>,
    delivery: Delivery,
}

impl Remote {
    pub(super) fn new(node: Option<Arc<Node>>) -> Self {
        let delivery = node.as_ref().map_or_else(Delivery::default, |node| node.options.delivery);
        Self { node, connection: None, delivery }
    }

    /// What all connections of the handle share. `None` where there is no LiteFS.
    #[inline]
    pub(super) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The node and its role, where statements may have to leave this node. One atomic load where
    /// there is LiteFS, none where there is not.
    #[inline]
    pub(super) fn clustered(&self) -> Option<(&Arc<Node>, RoleStamp)> {
        let node = self.node.as_ref()?;
        let stamp = node.tracker.stamp();
        (stamp.kind() != RoleKind::Standalone).then_some((node, stamp))
    }

    pub(super) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Sets how forwarded writes are delivered, and returns what was set before.
    pub(super) fn replace_delivery(&mut self, delivery: Delivery) -> Delivery {
        std::mem::replace(&mut self.delivery, delivery)
    }

    /// Whether the role has changed since the connection to the primary was used.
    pub(super) fn has_changed(&self, node: &Node) -> bool {
        self.connection.as_ref().is_some_and(|(used, _)| *used != node.tracker.stamp())
    }

    /// The version of the protocol that the primary speaks, if a connection to it is open.
    pub(super) fn version(&mut self, node: &Node) -> Option<ProtocolVersion> {
        self.connection(node).map(|connection| connection.version())
    }

    /// What the next call goes over, if a connection to the primary is open.
    fn channel(&mut self, node: &Node) -> Option<Channel> {
        let connection = self.connection(node)?;
        Some(Channel::new(node, connection))
    }

    /// The open connection to the primary. In the common case that is the one used last, and costs
    /// neither a lock nor an allocation.
    fn connection(&mut self, node: &Node) -> Option<Arc<client::Connection>> {
        let stamp = node.tracker.stamp();
        if let Some((used, connection)) = &self.connection
            && *used == stamp
            && connection.is_open()
        {
            return Some(Arc::clone(connection));
        }
        let Role::Replica { primary } = node.tracker.role() else { return None };
        let connection = node.forwarder.client().live(&node.tracker.rpc_address(&primary))?;
        self.connection = Some((stamp, Arc::clone(&connection)));
        Some(connection)
    }

    /// Whether the error leaves the outcome of a write open, and the primary can tell it.
    fn can_resolve(&self, error: &CallError) -> bool {
        let interrupted = *error == CallError::Refused(ServerError::Interrupted);
        self.delivery == Delivery::ExactlyOnce && error.fate() == Fate::Unknown && !interrupted
    }
}

/// The forwarder tries again after these errors: nothing was applied, and another try may succeed.
fn is_worth_another_try(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Unreachable { .. }
            | CallError::Refused(
                ServerError::NotPrimary { .. }
                    | ServerError::Overloaded { .. }
                    | ServerError::ShuttingDown
            )
    )
}
