//! Accepts connections, completes their handshakes and serves their requests, on one thread.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tarpc::server::{BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::Handler;
use super::node::Node;
use super::sessions::ConnectionId;
use crate::handshake::{self, HandshakeError};
use crate::service::Forward;
use crate::transport;
use crate::wire::ProtocolVersion;

pub(super) struct Acceptor {
    pub(super) node: Arc<Node>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// One permit for each connection.
    pub(super) permits: Arc<Semaphore>,
    pub(super) last_id: AtomicU64,
}

impl Acceptor {
    /// Starts the thread that serves connections. It ends once the server is stopped and all
    /// connections have ended.
    pub(super) fn start(self, listener: TcpListener) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = listener.into_std()?;
        let (stop, tasks, queue) =
            (self.stop.clone(), self.tasks.clone(), Arc::clone(&self.node.queue));
        std::thread::Builder::new().name("litefs-serve".into()).spawn(move || {
            runtime.block_on(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => drop(tasks.spawn(self.run(listener))),
                    Err(error) => tracing::error!(%error, "cannot accept forwarded writes"),
                }
                // A separate task: waking the future that `block_on` runs takes a system call.
                let work = async move { queue.run_inline().await };
                tasks.spawn(stop.clone().run_until_cancelled_owned(work));
                stop.cancelled().await;
                tasks.close();
                tasks.wait().await;
            });
            // Reads that still run have no caller any more.
            runtime.shutdown_background();
        })
    }

    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.serve_connection(stream, peer.ip()),
                Err(error) => {
                    // Most likely out of file descriptors: retry after a pause.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn serve_connection(&self, stream: TcpStream, peer: IpAddr) {
        // Requests are small and awaited one by one: Nagle's algorithm would delay them.
        let _ = stream.set_nodelay(true);
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let limits = &self.node.config.limits;
            let (limit, timeout) = (limits.connections, limits.handshake);
            // Bounded by `timeout`: a refused client holds its socket no longer than that.
            self.tasks.spawn(async move {
                let _ = tokio::time::timeout(timeout, handshake::turn_away(stream, limit)).await;
            });
            return;
        };
        let id = ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed));
        let handler = Handler::new(id, Arc::clone(&self.node));
        let connection = Connection { node: Arc::clone(&self.node), handler, id, _permit: permit };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection.serve(stream, peer) => {}
            }
        });
    }
}

struct Connection {
    node: Arc<Node>,
    handler: Handler,
    id: ConnectionId,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: IpAddr) {
        match self.handshake(stream).await {
            Ok((stream, version)) => self.requests(stream, version).await,
            Err(error) => tracing::warn!(%peer, %error, "refused a connection"),
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<(TcpStream, ProtocolVersion), HandshakeError> {
        let config = &self.node.config;
        let handshake = handshake::receive_client(stream, &config.database, config.secret.as_ref());
        match tokio::time::timeout(config.limits.handshake, handshake).await {
            Ok(result) => result,
            Err(_) => Err(HandshakeError::Broken(format!(
                "it took longer than {:?}",
                config.limits.handshake
            ))),
        }
    }

    async fn requests(&self, stream: TcpStream, version: ProtocolVersion) {
        let transport = transport::framed(stream, version, self.node.config.limits.frame);
        let channel = BaseChannel::with_defaults(transport)
            .max_concurrent_requests(self.node.config.limits.queue);
        let responses = channel.execute(self.handler.clone().serve());
        // A connection's requests run inside its task and end with it.
        run_all(responses).await;
    }
}

impl Drop for Connection {
    /// A lost connection rolls back its transaction immediately.
    fn drop(&mut self) {
        self.node.sessions.end_of(self.id);
    }
}

/// Runs requests as they arrive. All requests that are ready complete before the connection is
/// polled again, so that it writes their answers together (`for_each_concurrent` polls it after
/// each one).
async fn run_all<R: Future<Output = ()>>(requests: impl Stream<Item = R>) {
    let mut requests = pin!(requests.fuse());
    let mut running = FuturesUnordered::new();
    poll_fn(|context| {
        loop {
            let mut progress = false;
            while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {
                progress = true;
            }
            if let Poll::Ready(Some(request)) = requests.as_mut().poll_next(context) {
                running.push(request);
                progress = true;
            }
            if requests.is_done() && running.is_empty() {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await;
}
