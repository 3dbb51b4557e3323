//! The primary of the database, wherever it is.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use litefs_core::Position;
use litefs_rpc::client::{CallError, Connection, ForwardError, Forwarded};
use litefs_rpc::server::Server;
use litefs_rpc::wire::{RequestId, ResolvedOutcome};

use super::locator::Forwarding;
use crate::error::PrimaryError;

/// Calls to the primary. If this node is the primary, its own server answers, otherwise the
/// primary's server over the network. The calls must run on the I/O thread.
#[derive(Clone)]
pub(crate) struct Primary {
    pub(super) forwarder: Arc<Forwarding>,
    pub(super) server: Arc<Mutex<Option<Arc<Server>>>>,
}

impl Primary {
    /// The primary's position. `None`: this node is the primary, and its own file has everything.
    pub(crate) async fn position(
        &self,
        deadline: Instant,
    ) -> Result<Option<Position>, ForwardError> {
        self.ask(deadline, |primary| async move { primary.position(deadline).await }).await
    }

    /// What became of a write. `None`: this node is the primary, and its own file has the outcome.
    pub(crate) async fn outcome(
        &self,
        id: RequestId,
        deadline: Instant,
    ) -> Result<Option<ResolvedOutcome>, ForwardError> {
        self.ask(deadline, |primary| async move { primary.outcome(id, deadline).await }).await
    }

    /// Returns once as many replicas have reached a position.
    pub(crate) async fn replicated(
        &self,
        position: Position,
        replicas: usize,
        deadline: Instant,
    ) -> Result<(), PrimaryError> {
        let call = |primary: Arc<Connection>| async move {
            primary.replicated(position, replicas, deadline).await
        };
        match self.ask(deadline, call).await? {
            Some(()) => Ok(()),
            None => Ok(self.server()?.replicated(position, replicas, deadline).await?),
        }
    }

    /// Makes the replica `to`, or the one that is furthest ahead, the primary. Returns its name.
    pub(crate) async fn handoff(
        &self,
        to: Option<String>,
        deadline: Instant,
    ) -> Result<String, PrimaryError> {
        let call = |primary: Arc<Connection>| {
            let to = to.clone();
            async move { primary.handoff(to, deadline).await }
        };
        // Not repeated after a lost answer: the handoff may have happened.
        match self.forwarder.with_primary(deadline.into(), call).await? {
            Forwarded::There(successor) => Ok(successor),
            Forwarded::Here | Forwarded::Unresolved => {
                Ok(self.server()?.handoff(to, deadline).await?)
            }
        }
    }

    /// Makes an idempotent call to another node. `None`: this node is the primary.
    async fn ask<T, Call>(
        &self,
        deadline: Instant,
        call: impl Fn(Arc<Connection>) -> Call,
    ) -> Result<Option<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        match self.forwarder.ask_primary(deadline.into(), call).await? {
            Forwarded::There(answer) => Ok(Some(answer)),
            Forwarded::Here | Forwarded::Unresolved => Ok(None),
        }
    }

    fn server(&self) -> Result<Arc<Server>, PrimaryError> {
        let server = self.server.lock().expect("no code panics while it holds the server");
        server.clone().ok_or(PrimaryError::NotServing)
    }
}
