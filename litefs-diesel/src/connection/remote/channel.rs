//! What a call to the primary goes over.

use std::sync::Arc;
use std::time::Instant;

use litefs_rpc::client::{self, CallError, ExclusiveConnection};

use crate::node::Node;

/// What a call, or a whole transaction, goes over.
#[derive(Debug)]
pub(super) enum Channel {
    /// A connection that one caller drives on its own thread: the fastest for few callers.
    Exclusive(Box<ExclusiveConnection>),
    /// The connection that all callers of the process share: the fastest for many callers.
    Shared(Arc<client::Connection>),
}

impl Channel {
    /// An idle exclusive connection, or else the shared one, `connection`.
    pub(super) fn new(node: &Node, connection: Arc<client::Connection>) -> Self {
        if let Some(exclusive) = connection.exclusive() {
            return Channel::Exclusive(Box::new(exclusive));
        }
        let client = node.forwarder.client();
        if client.wants_exclusive(&connection) {
            let (client, connection) = (Arc::clone(client), Arc::clone(&connection));
            node.io.spawn(async move { client.open_exclusive(connection).await });
        }
        Channel::Shared(connection)
    }

    /// Makes a call and blocks until it is answered.
    pub(super) fn wait<T, Call>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(Arc<client::Connection>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        match self {
            Channel::Exclusive(exclusive) => exclusive.wait(deadline, call),
            Channel::Shared(connection) => pollster::block_on(call(Arc::clone(connection))),
        }
    }

    /// Makes the channel available to the next caller. Nothing may be open on it: a channel that
    /// is dropped instead ends what is open.
    pub(super) fn release(self) {
        if let Channel::Exclusive(exclusive) = self {
            exclusive.release();
        }
    }
}
