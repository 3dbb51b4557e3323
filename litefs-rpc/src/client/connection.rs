use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use litefs_core::{Position, Txid};
use tarpc::client::RpcError;
use tarpc::context::Context;
use tarpc::{ClientMessage, Response};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::error::CallError;
use super::exclusive::{Blocking, ExclusiveConnection, Lanes};
use crate::limits::Limits;
use crate::service::{ForwardClient, ForwardRequest, ForwardResponse};
use crate::transport;
use crate::wire::{
    Begin, Command, PrimaryReport, ProtocolVersion, ReplicaReport, Reply, Request, RequestId, ServerError,
    SessionId, Settled,
};

/// One open connection to a server. All threads of the process share it; requests are told apart by tarpc's ids.
///
/// The futures need no runtime around them: the connection is driven by the one that opened it.
#[derive(Debug)]
pub struct Connection {
    address: String,
    rpc: ForwardClient,
    closed: CancellationToken,
    round_trips: Arc<AtomicU64>,
    lanes: Arc<Lanes>,
}

struct ClosesLanes(Arc<Lanes>);

impl Drop for ClosesLanes {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The client of a transport, and what has to be polled for it to work.
/// A stream on which the handshake is done, and the version that it has settled on.
pub(super) type Greeted = (TcpStream, ProtocolVersion);

fn speak<T>(transport: T, limits: &Limits) -> (ForwardClient, impl Future<Output = ()> + Send + use<T>)
where
    T: tarpc::Transport<ClientMessage<ForwardRequest>, Response<ForwardResponse>> + Send + 'static,
    T::TransportError: Send + Sync + 'static,
{
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = limits.queue;
    config.pending_request_buffer = limits.queue;
    let client = ForwardClient::new(config, transport);
    let dispatch = async move {
        if let Err(error) = client.dispatch.await {
            tracing::debug!(%error, "the connection to the primary broke");
        }
    };
    (client.client, dispatch)
}

impl Connection {
    /// Spawns the connection's task on the current runtime.
    pub(super) fn open(
        address: String,
        (stream, version): Greeted,
        limits: &Limits,
        round_trips: Arc<AtomicU64>,
    ) -> Self {
        let (rpc, dispatch) = speak(transport::framed(stream, version, limits.frame), limits);
        let closed = CancellationToken::new();
        let lanes = Arc::new(Lanes::default());
        let link = Self { address, rpc, closed: closed.clone(), round_trips, lanes: Arc::clone(&lanes) };
        tokio::spawn(async move {
            // Held until the end, whatever the end is: a closed link is never mistaken for an open one.
            let _closes = closed.clone().drop_guard();
            let _closes_lanes = ClosesLanes(lanes);
            tokio::select! {
                () = closed.cancelled() => {}
                () = dispatch => {}
            }
        });
        link
    }

    /// Takes another connection to the same server for a lane, with the handshake done.
    pub(super) fn add_lane(&self, (stream, version): Greeted, limits: &Limits) -> std::io::Result<()> {
        self.lanes.add(stream, |stream| {
            let (rpc, dispatch) =
                speak(Blocking::new(transport::framed(stream, version, limits.frame)), limits);
            let link = Self {
                address: self.address.clone(),
                rpc,
                closed: self.closed.clone(),
                round_trips: Arc::clone(&self.round_trips),
                lanes: Arc::clone(&self.lanes),
            };
            (Arc::new(link), Box::pin(dispatch))
        })
    }

    /// A connection for this caller alone, if one is idle. It is closed together with this one.
    #[must_use]
    pub fn lane(&self) -> Option<ExclusiveConnection> {
        self.lanes.take()
    }

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether requests can still be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Runs one autocommit write.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn write(&self, request: Request, deadline: Instant) -> Result<Reply, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.write(call.context(), request)).await;
        self.checked(call.settle(answer)?)
    }

    /// Opens a transaction. The inner result is that of its first statement, which may fail by itself.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn begin(
        &self,
        begin: Begin,
        deadline: Instant,
    ) -> Result<(SessionId, Option<Result<Reply, CallError>>), CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.begin(call.context(), begin)).await;
        let (session, first) = call.settle(answer)?;
        let first =
            first.map(|first| first.map_err(CallError::Refused).and_then(|reply| self.checked(reply)));
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
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.step(call.context(), session, work)).await;
        self.checked(call.settle(answer)?)
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
        let answer = self.unless_closed(self.rpc.finish(call.context(), session, commit)).await;
        call.settle(answer)
    }

    /// Asks what became of a write, and gives it up if it is not applied.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn outcome(&self, id: RequestId, deadline: Instant) -> Result<Settled, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.outcome(call.context(), id)).await;
        call.settle(answer)
    }

    /// Tells the primary of this replica, and hears where the primary is once that is beyond `known`. Not counted as a round
    /// trip: no statement waits for it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn follow(
        &self,
        report: ReplicaReport,
        known: Txid,
        deadline: Instant,
    ) -> Result<PrimaryReport, CallError> {
        let call = Call { address: &self.address, started: Instant::now(), deadline };
        let answer = self.unless_closed(self.rpc.follow(call.context(), report, known)).await;
        call.settle(answer)
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
        let answer = self.unless_closed(self.rpc.replicated(call.context(), position, replicas)).await;
        call.settle(answer)
    }

    /// Asks the primary to hand over; see [`Server::handoff`](crate::server::Server::handoff).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn handoff(&self, to: Option<String>, deadline: Instant) -> Result<String, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.handoff(call.context(), to)).await;
        call.settle(answer)
    }

    /// Asks a replica to become the primary once it has reached a position.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn promote_here(&self, position: Position, deadline: Instant) -> Result<(), CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.promote_here(call.context(), position)).await;
        call.settle(answer)
    }

    /// Asks the primary for its position.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn position(&self, deadline: Instant) -> Result<Position, CallError> {
        let call = self.start(deadline);
        let answer = self.unless_closed(self.rpc.position(call.context())).await;
        call.settle(answer)
    }

    /// A request that is handed over in the very moment in which the connection's task ends may stay where nobody finds it:
    /// tokio's channel keeps what is sent while its receiver is dropped.
    ///
    /// Boxed, because tarpc's futures are of some kilobytes, and each layer around one that holds it would copy it again.
    async fn unless_closed<T>(&self, call: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let call = Box::pin(call);
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.closed.cancelled() => Err(RpcError::Shutdown),
        }
    }

    fn start(&self, deadline: Instant) -> Call<'_> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        Call { address: &self.address, started: Instant::now(), deadline }
    }

    /// A row set from elsewhere is used only if its shape is right.
    fn checked(&self, reply: Reply) -> Result<Reply, CallError> {
        match &reply.answer {
            crate::wire::Output::Rows(rows) if !rows.is_well_formed() => Err(CallError::Lost {
                address: self.address.clone(),
                reason: "the answer is malformed: its values do not fill whole rows".into(),
            }),
            _ => Ok(reply),
        }
    }
}

/// One request under way.
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

    /// tarpc's three layers of errors in our one.
    fn settle<T>(&self, answer: Result<Result<T, ServerError>, RpcError>) -> Result<T, CallError> {
        let lost = |reason: String| CallError::Lost { address: self.address.into(), reason };
        match answer {
            Ok(answer) => answer.map_err(CallError::Refused),
            Err(RpcError::Send(error)) => Err(CallError::Encoding(error.to_string())),
            Err(RpcError::DeadlineExceeded) => {
                Err(CallError::Deadline { address: self.address.into(), after: self.started.elapsed() })
            }
            // tarpc's throttle answers in the server's place; the request was not looked at.
            Err(RpcError::Server(error)) if error.kind == std::io::ErrorKind::WouldBlock => {
                Err(CallError::Refused(ServerError::Overloaded { limit: 0 }))
            }
            Err(error @ (RpcError::Shutdown | RpcError::Channel(_) | RpcError::Server(_))) => {
                Err(lost(error.to_string()))
            }
        }
    }
}
