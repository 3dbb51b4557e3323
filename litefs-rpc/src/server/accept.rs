//! Connections: accepted, greeted, served, on a thread of the server's own.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tarpc::server::{BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::{Handler, Node};
use super::sessions::ConnectionId;
use crate::handshake::{self, HandshakeError};
use crate::service::Forward;
use crate::transport;
use crate::wire::ProtocolVersion;

pub(super) struct Acceptor {
    pub(super) node: Arc<Node>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) last_id: AtomicU64,
}

impl Acceptor {
    /// The thread on which connections are served. It ends after the server has been stopped and they have ended.
    pub(super) fn start(self, listener: TcpListener) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = listener.into_std()?;
        let (stop, tasks, queue) = (self.stop.clone(), self.tasks.clone(), Arc::clone(&self.node.queue));
        std::thread::Builder::new().name("litefs-serve".into()).spawn(move || {
            runtime.block_on(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => drop(tasks.spawn(self.run(listener))),
                    Err(error) => tracing::error!(%error, "cannot take forwarded writes"),
                }
                // A task of its own: waking the future that `block_on` runs goes through the kernel.
                let work = async move { queue.work_here().await };
                tasks.spawn(stop.clone().run_until_cancelled_owned(work));
                stop.cancelled().await;
                tasks.close();
                tasks.wait().await;
            });
            // Nobody waits for the reads that are left any more.
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
                Ok((stream, peer)) => self.welcome(stream, peer.ip()),
                Err(error) => {
                    // Out of descriptors, most likely: accepting at full speed would only burn the processor.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn welcome(&self, stream: TcpStream, peer: IpAddr) {
        // Requests are small and awaited one by one: Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(slot) = Slot::take(&self.open, self.node.config.limits.connections) else {
            let limits = &self.node.config.limits;
            let (limit, patience) = (limits.connections, limits.handshake);
            // Also bounded: at most as many are being turned away as wait for `patience` in the backlog.
            self.tasks.spawn(async move {
                let _ = tokio::time::timeout(patience, handshake::turn_away(stream, limit)).await;
            });
            return;
        };
        let id = ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed));
        let handler = Handler::new(id, Arc::clone(&self.node));
        let connection = Connection { node: Arc::clone(&self.node), handler, id, _slot: slot };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection.serve(stream, peer) => {}
            }
        });
    }
}

/// One of the allowed connections; gives its place back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection {
    node: Arc<Node>,
    handler: Handler,
    id: ConnectionId,
    _slot: Slot,
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: IpAddr) {
        match self.handshake(stream).await {
            Ok((stream, version)) => self.requests(stream, version).await,
            Err(error) => tracing::warn!(%peer, %error, "refused a connection"),
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<(TcpStream, ProtocolVersion), HandshakeError> {
        let config = &self.node.config;
        let shaken = handshake::receive_client(stream, &config.database, config.secret.as_ref());
        match tokio::time::timeout(config.limits.handshake, shaken).await {
            Ok(result) => result,
            Err(_) => {
                Err(HandshakeError::Broken(format!("it took longer than {:?}", config.limits.handshake)))
            }
        }
    }

    async fn requests(&self, stream: TcpStream, version: ProtocolVersion) {
        let transport = transport::framed(stream, version, self.node.config.limits.frame);
        let channel =
            BaseChannel::with_defaults(transport).max_concurrent_requests(self.node.config.limits.queue);
        let responses = channel.execute(self.handler.clone().serve());
        // All of a connection's requests run inside its one task: when it ends, so do they.
        run_all(responses).await;
    }
}

impl Drop for Connection {
    /// A lost connection rolls back at once.
    fn drop(&mut self) {
        self.node.sessions.end_of(self.id);
    }
}

/// Runs requests as they come in. Those that are answered at the same time are all let finish before the connection is looked
/// at again, which writes their answers in one go (`for_each_concurrent` looks after each, and writes it on its own).
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
