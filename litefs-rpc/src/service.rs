//! The tarpc service.

use litefs_core::{Position, Txid};

use crate::wire::{
    Begin, Command, PrimaryReport, ReplicaReport, Reply, Request, RequestId, ServerError, SessionId, Settled,
};

/// What a primary does for the other nodes.
#[tarpc::service]
pub trait Forward {
    /// Runs one autocommit write.
    async fn write(request: Request) -> Result<Reply, ServerError>;
    /// Opens a transaction and runs its first statement. When that fails by itself, on a constraint for example, the
    /// transaction is open all the same, as in SQLite.
    async fn begin(begin: Begin) -> Result<(SessionId, Option<Result<Reply, ServerError>>), ServerError>;
    /// Runs a statement inside an open transaction.
    async fn step(session: SessionId, work: Command) -> Result<Reply, ServerError>;
    /// Commits or rolls back an open transaction.
    async fn finish(session: SessionId, commit: bool) -> Result<Reply, ServerError>;
    /// What became of a write. One that is not applied is given up: should it still arrive, it is refused.
    async fn outcome(id: RequestId) -> Result<Settled, ServerError>;
    /// Told by a replica, again and again: answered once the primary is beyond `known`, or after a while.
    async fn follow(report: ReplicaReport, known: Txid) -> Result<PrimaryReport, ServerError>;
    /// Answered once as many replicas as wanted have reached a position.
    async fn replicated(position: Position, replicas: usize) -> Result<(), ServerError>;
    /// Asks the primary to hand over to the node named, or to the one that has come furthest. Answers with its name.
    async fn handoff(to: Option<String>) -> Result<String, ServerError>;
    /// Asks a replica to become the primary once it has reached a position.
    async fn promote_here(position: Position) -> Result<(), ServerError>;
    /// The primary's position now.
    async fn position() -> Result<Position, ServerError>;
}
