//! The requests of the service, as typed calls on a connection.

use std::time::Instant;

use litefs_core::{Position, Txid};
use tarpc::client::RpcError;
use tarpc::context::Context;

use super::connection::Connection;
use super::error::CallError;
use crate::wire::{
    Begin, Command, PrimaryReport, ProcedureFault, ReplicaReport, Reply, Request, RequestId,
    ResolvedOutcome, ServerError, SessionId,
};

impl Connection {
    /// Runs one autocommit write.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn write(&self, request: Request, deadline: Instant) -> Result<Reply, CallError> {
        self.check_version(&request.work)?;
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().write(call.context(), request)).await;
        self.checked(call.conclude(answer)?)
    }

    /// Opens a transaction. The inner result is that of its first statement, which may fail by
    /// itself.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn begin(
        &self,
        begin: Begin,
        deadline: Instant,
    ) -> Result<(SessionId, Option<Result<Reply, CallError>>), CallError> {
        begin.first.as_ref().map_or(Ok(()), |work| self.check_version(work))?;
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().begin(call.context(), begin)).await;
        let (session, first) = call.conclude(answer)?;
        let first = first
            .map(|first| first.map_err(CallError::Refused).and_then(|reply| self.checked(reply)));
        Ok((session, first))
    }

    /// Runs a statement inside a transaction that this connection opened.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn step(
        &self,
        session: SessionId,
        work: Command,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        self.check_version(&work)?;
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().step(call.context(), session, work)).await;
        self.checked(call.conclude(answer)?)
    }

    /// Commits or rolls back a transaction that this connection opened.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn finish(
        &self,
        session: SessionId,
        commit: bool,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().finish(call.context(), session, commit)).await;
        call.conclude(answer)
    }

    /// Asks what became of a write. If it is not applied, its id is fenced: a late retry is
    /// rejected.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn outcome(
        &self,
        id: RequestId,
        deadline: Instant,
    ) -> Result<ResolvedOutcome, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().outcome(call.context(), id)).await;
        call.conclude(answer)
    }

    /// Long-polls the primary: reports this replica's position and returns once the primary's
    /// position is beyond `known`. Not counted as a round trip: no statement waits for it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn follow(
        &self,
        report: ReplicaReport,
        known: Txid,
        deadline: Instant,
    ) -> Result<PrimaryReport, CallError> {
        let call = Call { address: self.address(), started: Instant::now(), deadline };
        let answer = self.unless_closed(self.rpc().follow(call.context(), report, known)).await;
        call.conclude(answer)
    }

    /// Returns once as many replicas have reached a position.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn replicated(
        &self,
        position: Position,
        replicas: usize,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let call = self.start(deadline);
        let answer =
            self.unless_closed(self.rpc().replicated(call.context(), position, replicas)).await;
        call.conclude(answer)
    }

    /// Asks the primary for a handoff; see [`Server::handoff`](crate::server::Server::handoff).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn handoff(
        &self,
        to: Option<String>,
        deadline: Instant,
    ) -> Result<String, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().handoff(call.context(), to)).await;
        call.conclude(answer)
    }

    /// Asks a replica to become the primary once it has reached a position.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn promote_here(
        &self,
        position: Position,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().promote_here(call.context(), position)).await;
        call.conclude(answer)
    }

    /// Asks the primary for its position.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn position(&self, deadline: Instant) -> Result<Position, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc().position(call.context())).await;
        call.conclude(answer)
    }

    fn start(&self, deadline: Instant) -> Call<'_> {
        self.count_round_trip();
        Call { address: self.address(), started: Instant::now(), deadline }
    }

    /// Refuses a command that the server could not decode.
    fn check_version(&self, work: &Command) -> Result<(), CallError> {
        match work {
            Command::Call(call) if self.version() < work.since() => {
                Err(CallError::Refused(ServerError::Procedure {
                    procedure: call.procedure.clone(),
                    node: self.address().into(),
                    fault: ProcedureFault::OldProtocol,
                }))
            }
            // Nothing is sent, so nothing is applied; the next try finds the version known.
            Command::Transaction(_) if self.version() < work.since() => {
                Err(CallError::Refused(ServerError::SessionLost {
                    reason: format!(
                        "the primary at {} speaks an older version of the protocol",
                        self.address()
                    ),
                }))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a malformed row set.
    fn checked(&self, reply: Reply) -> Result<Reply, CallError> {
        match &reply.answer {
            crate::wire::Output::Rows(rows) if !rows.is_well_formed() => Err(CallError::Lost {
                address: self.address().into(),
                reason: "the answer is malformed: its values do not fill whole rows".into(),
            }),
            _ => Ok(reply),
        }
    }
}

/// One request in progress.
struct Call<'a> {
    address: &'a str,
    started: Instant,
    deadline: Instant,
}

impl Call<'_> {
    fn context(&self) -> Context {
        let mut context = tarpc::context::current();
        context.deadline = self.deadline;
        context
    }

    /// Maps tarpc's three layers of errors to one.
    fn conclude<T>(
        &self,
        answer: Result<Result<T, ServerError>, RpcError>,
    ) -> Result<T, CallError> {
        let lost = |reason: String| CallError::Lost { address: self.address.into(), reason };
        match answer {
            Ok(answer) => answer.map_err(CallError::Refused),
            Err(RpcError::Send(error)) => Err(CallError::Encoding(error.to_string())),
            Err(RpcError::DeadlineExceeded) => Err(CallError::Deadline {
                address: self.address.into(),
                after: self.started.elapsed(),
            }),
            // tarpc's throttle has answered; the server has not seen the request.
            Err(RpcError::Server(error)) if error.kind == std::io::ErrorKind::WouldBlock => {
                Err(CallError::Refused(ServerError::Overloaded { limit: 0 }))
            }
            Err(error @ (RpcError::Shutdown | RpcError::Channel(_) | RpcError::Server(_))) => {
                Err(lost(error.to_string()))
            }
        }
    }
}
