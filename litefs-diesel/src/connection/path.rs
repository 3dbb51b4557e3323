//! The way one call takes to the primary.

use std::sync::Arc;
use std::time::Instant;

use litefs_rpc::client::{CallError, Lane, Link};

use super::LiteFsConnection;
use crate::litefs::Shared;

/// What a call, or a whole transaction, goes over.
#[derive(Debug)]
pub(super) enum Path {
    /// A connection of its own: the fastest for callers who are few.
    Lane(Box<Lane>),
    /// The connection that all share: the fastest for callers who are many.
    Shared(Arc<Link>),
}

impl Path {
    /// Makes a call and blocks until it is answered.
    pub(super) fn wait<T, Call>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(Arc<Link>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        match self {
            Path::Lane(lane) => lane.wait(deadline, call),
            Path::Shared(link) => pollster::block_on(call(Arc::clone(link))),
        }
    }

    /// For the next caller. Nothing may be open on it; a path that is dropped instead ends what is open.
    pub(super) fn give_back(self) {
        if let Path::Lane(lane) = self {
            lane.give_back();
        }
    }
}

impl LiteFsConnection {
    /// The way to the primary of the moment, if a connection to it is open.
    pub(super) fn path(&mut self, shared: &Shared) -> Option<Path> {
        let link = self.link(shared)?;
        if let Some(lane) = link.lane() {
            return Some(Path::Lane(Box::new(lane)));
        }
        let client = shared.forwarder.client();
        if client.wants_lane(&link) {
            let (client, link) = (Arc::clone(client), Arc::clone(&link));
            shared.io.spawn(async move { client.open_lane(link).await });
        }
        Some(Path::Shared(link))
    }
}
