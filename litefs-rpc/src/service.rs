//! The tarpc service.

use litefs_core::Position;

use crate::wire::{Begin, Refusal, Reply, Request, RequestId, SessionId, Settled, Work};

/// What a primary does for the other nodes.
#[tarpc::service]
pub trait Forward {
    /// Runs one autocommit write.
    async fn write(request: Request) -> Result<Reply, Refusal>;
    /// Opens a transaction and runs its first statement. When that fails by itself, on a constraint for example, the
    /// transaction is open all the same, as in SQLite.
    async fn begin(begin: Begin) -> Result<(SessionId, Option<Result<Reply, Refusal>>), Refusal>;
    /// Runs a statement inside an open transaction.
    async fn step(session: SessionId, work: Work) -> Result<Reply, Refusal>;
    /// Commits or rolls back an open transaction.
    async fn finish(session: SessionId, commit: bool) -> Result<Reply, Refusal>;
    /// What became of a write. One that is not applied is given up: should it still arrive, it is refused.
    async fn outcome(id: RequestId) -> Result<Settled, Refusal>;
    /// The primary's position now.
    async fn position() -> Result<Position, Refusal>;
}
