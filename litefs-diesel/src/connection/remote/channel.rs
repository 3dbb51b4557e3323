//! The way one call takes to the primary.

use std::sync::Arc;
use std::time::Instant;

use litefs_rpc::client::{self, CallError, ExclusiveConnection};

use super::super::LiteFsConnection;
use crate::node::Node;

/// What a call, or a whole transaction, goes over.
#[derive(Debug)]
pub(in crate::connection) enum Path {
    /// A connection of its own: the fastest for callers who are few.
    ExclusiveConnection(Box<ExclusiveConnection>),
    /// The connection that all share: the fastest for callers who are many.
    Shared(Arc<client::Connection>),
}

impl Path {
    /// Makes a call and blocks until it is answered.
    pub(in crate::connection) fn wait<T, Call>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(Arc<client::Connection>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        match self {
            Path::ExclusiveConnection(lane) => lane.wait(deadline, call),
            Path::Shared(link) => pollster::block_on(call(Arc::clone(link))),
        }
    }

    /// For the next caller. Nothing may be open on it; a path that is dropped instead ends what is
    /// open.
    pub(in crate::connection) fn release(self) {
        if let Path::ExclusiveConnection(lane) = self {
            lane.release();
        }
    }
}

impl LiteFsConnection {
    /// The way to the primary of the moment, if a connection to it is open.
    pub(in crate::connection) fn path(&mut self, node: &Node) -> Option<Path> {
        let link = self.link(node)?;
        if let Some(lane) = link.lane() {
            return Some(Path::ExclusiveConnection(Box::new(lane)));
        }
        let client = node.forwarder.client();
        if client.wants_lane(&link) {
            let (client, link) = (Arc::clone(client), Arc::clone(&link));
            node.io.spawn(async move { client.open_lane(link).await });
        }
        Some(Path::Shared(link))
    }
}
