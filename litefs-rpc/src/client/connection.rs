//! The shared connection to one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tarpc::client::RpcError;
use tarpc::{ClientMessage, Response};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use crate::limits::Limits;
use crate::service::{ForwardClient, ForwardRequest, ForwardResponse};
use crate::transport;
use crate::wire::ProtocolVersion;

/// One open connection to a server. All threads of the process share it; tarpc matches answers to
/// requests by their ids.
///
/// Its futures need no runtime: the runtime that opened the connection drives it.
#[derive(Debug)]
pub struct Connection {
    address: Arc<str>,
    version: ProtocolVersion,
    rpc: ForwardClient,
    closed: CancellationToken,
    round_trips: Arc<AtomicU64>,
    pool: Arc<Pool>,
}

struct ClosesPool(Arc<Pool>);

impl Drop for ClosesPool {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A stream on which the handshake is done, and the protocol version that was agreed on.
pub(super) type Greeted = (TcpStream, ProtocolVersion);

/// The client of a transport, and the future that drives it.
pub(super) fn client<T>(
    transport: T,
    limits: &Limits,
) -> (ForwardClient, impl Future<Output = ()> + Send + use<T>)
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
        let (rpc, dispatch) = client(transport::framed(stream, version, limits.frame), limits);
        let closed = CancellationToken::new();
        let pool = Arc::new(Pool::default());
        let connection = Self {
            address: address.into(),
            version,
            rpc,
            closed: closed.clone(),
            round_trips,
            pool: Arc::clone(&pool),
        };
        tokio::spawn(async move {
            // Dropped however the task ends, so that the connection is marked as closed.
            let _closes = closed.clone().drop_guard();
            let _closes_pool = ClosesPool(pool);
            tokio::select! {
                () = closed.cancelled() => {}
                () = dispatch => {}
            }
        });
        connection
    }

    /// The same server over another transport.
    pub(super) fn over(&self, rpc: ForwardClient) -> Self {
        Self {
            address: Arc::clone(&self.address),
            version: self.version,
            rpc,
            closed: self.closed.clone(),
            round_trips: Arc::clone(&self.round_trips),
            pool: Arc::clone(&self.pool),
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn rpc(&self) -> &ForwardClient {
        &self.rpc
    }

    pub(super) fn count_round_trip(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The protocol version that the connection speaks.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
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

    /// Fails a call that was sent while the connection is closing: tokio's channel keeps a message
    /// that is sent while its receiver is dropped, and the call would never be answered.
    ///
    /// Boxed, because tarpc's futures take some kilobytes and each layer around one would copy it.
    pub(super) async fn unless_closed<T>(
        &self,
        call: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let call = Box::pin(call);
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.closed.cancelled() => Err(RpcError::Shutdown),
        }
    }
}
