//! The tarpc service.

use litefs_core::{Position, Txid};

use crate::wire::{
    Begin, Command, PrimaryReport, ReplicaReport, Reply, Request, RequestId, ResolvedOutcome,
    ServerError, SessionId,
};

/// The requests that a node answers. All but `promote_here` need the primary.
#[tarpc::service]
pub trait Forward {
    /// Runs one autocommit write.
    async fn write(request: Request) -> Result<Reply, ServerError>;
    /// Opens a transaction and runs its first statement. When that fails by itself, on a constraint
    /// for example, the transaction is open all the same, as in SQLite.
    async fn begin(
        begin: Begin,
    ) -> Result<(SessionId, Option<Result<Reply, ServerError>>), ServerError>;
    /// Runs a statement inside an open transaction.
    async fn step(session: SessionId, work: Command) -> Result<Reply, ServerError>;
    /// Commits or rolls back an open transaction.
    async fn finish(session: SessionId, commit: bool) -> Result<Reply, ServerError>;
    /// Returns what became of a write. If it is not applied, its id is fenced: a late retry is
    /// rejected.
    async fn outcome(id: RequestId) -> Result<ResolvedOutcome, ServerError>;
    /// A replica's long poll: it reports its position and learns the primary's position and when
    /// its term started. Answered once the primary is beyond `known`, or after a timeout.
    async fn follow(report: ReplicaReport, known: Txid) -> Result<PrimaryReport, ServerError>;
    /// Answered once this number of replicas has reached a position.
    async fn replicated(position: Position, replicas: usize) -> Result<(), ServerError>;
    /// Performs a handoff to the node of this name, or to the replica with the highest position.
    /// Returns its name.
    async fn handoff(to: Option<String>) -> Result<String, ServerError>;
    /// Makes this replica the primary once it has reached a position.
    async fn promote_here(position: Position) -> Result<(), ServerError>;
    /// Returns the primary's current position.
    async fn position() -> Result<Position, ServerError>;
}
