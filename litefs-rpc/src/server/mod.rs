//! The server that a primary runs for the other nodes.

mod fence;
mod followers;
mod handler;
mod handover;
mod sessions;
mod writer;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures::StreamExt;
use litefs_core::Position;
use tarpc::server::{BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use fence::Fence;

use self::followers::Followers;
use self::handler::{Handler, Node};
use self::handover::Successors;
use self::sessions::{ConnectionId, Ended, Sessions};
use crate::executor::Executor;
use crate::handshake::{self, HandshakeError};
use crate::limits::Limits;
use crate::secret::Secret;
use crate::service::Forward;
use crate::transport;
use crate::wire::Refusal;

/// How the server is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The name of the database served, as LiteFS names it. Clients must ask for the same.
    pub database: String,
    /// The secret that clients must prove to know. `None` is accepted on loopback addresses only.
    pub secret: Option<Secret>,
    /// Accept clients without a secret from anywhere. The port executes SQL: only for networks that are closed
    /// by other means. Default `false`.
    pub allow_insecure: bool,
    /// What is refused.
    pub limits: Limits,
    /// Whether SQLite's word for a commit is held against LiteFS's. Without it writes are acknowledged that LiteFS dropped:
    /// only for tests that must see that happen. Default `true`.
    #[doc(hidden)]
    pub prove_commits: bool,
}

impl ServerConfig {
    /// A configuration with defaults for everything but the database's name.
    pub fn new(database: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            secret: None,
            allow_insecure: false,
            limits: Limits::default(),
            prove_commits: true,
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is reachable from other machines and nothing protects it.
    #[error(
        "refusing to listen on {0} without authentication: this port executes SQL. Set a shared secret, listen on a \
         loopback address, or say allow_insecure"
    )]
    Insecure(SocketAddr),
    /// The port is taken.
    #[error(
        "the RPC address {0} is already in use: another process of this node serves it. Start this handle with \
         serve(false), or give it another address"
    )]
    AddressInUse(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The writer's thread could not be started.
    #[error("cannot start the writer's thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running server. Dropping it closes the port and every connection; transactions still open roll back.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    node: Arc<Node>,
    handing_over: Arc<AtomicBool>,
}

impl Server {
    /// Binds `address` and serves on the current tokio runtime, with one thread for the executor.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start<E: Executor>(
        address: SocketAddr,
        config: ServerConfig,
        fence: Arc<dyn Fence>,
        executor: E,
    ) -> Result<Self, ServeError> {
        if !address.ip().is_loopback() && config.secret.is_none() && !config.allow_insecure {
            return Err(ServeError::Insecure(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ServeError::AddressInUse(address),
            _ => ServeError::Listen(address, error),
        })?;
        let address = listener.local_addr().map_err(|error| ServeError::Listen(address, error))?;
        let sessions = Arc::new(Sessions::default());
        // The thread ends by itself when the last connection drops its queue; nobody needs to join it.
        let followers = Arc::new(Followers::default());
        let handing_over = Arc::new(AtomicBool::new(false));
        let successors = Successors::new(&config, Arc::clone(&followers), Arc::clone(&handing_over));
        let (queue, _thread) = writer::start(
            executor,
            Arc::clone(&fence),
            Arc::clone(&sessions),
            config.limits.clone(),
            config.prove_commits,
            successors,
        )
        .map_err(ServeError::Thread)?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(end_sessions_on_demotion(Arc::clone(&fence), Arc::clone(&sessions), stop.clone()));
        let (keeper, told, stopped) = (Arc::clone(&followers), Arc::clone(&fence), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = keeper.keep_history(&*told) => {}
                () = stopped.cancelled() => {}
            }
        });
        let node = Arc::new(Node { config: Arc::new(config), fence, sessions, queue, followers });
        let acceptor = Acceptor {
            node: Arc::clone(&node),
            stop: stop.clone(),
            tasks: tasks.clone(),
            open: Arc::default(),
            last_id: AtomicU64::new(0),
        };
        tasks.spawn(acceptor.run(listener));
        Ok(Self { address, stop, tasks, node, handing_over })
    }

    /// Where the server listens; the port is the real one where port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this node is giving its place to another just now: who is about to write on its file had better wait and
    /// see where writes go then.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Acquire)
    }

    /// Gives the primary's place to the node named, or to the replica that has come furthest, without losing anything:
    /// nobody writes from the moment the writer and SQLite's lock are held until the other node has every commit and is
    /// the primary. What is queued meanwhile is sent on to it. Returns its name.
    ///
    /// # Errors
    /// [`Refusal::NotHandedOver`], [`Refusal::NotPrimary`]; then this node is the primary as before.
    pub async fn hand_over(
        &self,
        to: Option<String>,
        deadline: std::time::Instant,
    ) -> Result<String, Refusal> {
        self.node.hand_over(to, deadline).await
    }

    /// Returns once `replicas` replicas have reached `position`.
    ///
    /// # Errors
    /// [`Refusal::NotReplicated`] at the deadline.
    pub async fn replicated(
        &self,
        position: Position,
        replicas: usize,
        deadline: std::time::Instant,
    ) -> Result<(), Refusal> {
        self.node.followers.reach(position, replicas, deadline).await
    }

    /// Stops accepting, closes every connection and waits until their tasks have ended.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Acceptor {
    node: Arc<Node>,
    stop: CancellationToken,
    tasks: TaskTracker,
    open: Arc<AtomicUsize>,
    last_id: AtomicU64,
}

impl Acceptor {
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
            Ok(stream) => self.requests(stream).await,
            Err(error) => tracing::warn!(%peer, %error, "refused a connection"),
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<TcpStream, HandshakeError> {
        let config = &self.node.config;
        let shaken = handshake::receive_client(stream, &config.database, config.secret.as_ref());
        match tokio::time::timeout(config.limits.handshake, shaken).await {
            Ok(result) => result.map(|(stream, _version)| stream),
            Err(_) => {
                Err(HandshakeError::Broken(format!("it took longer than {:?}", config.limits.handshake)))
            }
        }
    }

    async fn requests(&self, stream: TcpStream) {
        let transport = transport::framed(stream, self.node.config.limits.frame);
        let channel =
            BaseChannel::with_defaults(transport).max_concurrent_requests(self.node.config.limits.queue);
        let responses = channel.execute(self.handler.clone().serve());
        // All of a connection's requests run inside its one task: when it ends, so do they.
        responses.for_each_concurrent(None, |response| response).await;
    }
}

impl Drop for Connection {
    /// A lost connection rolls back at once.
    fn drop(&mut self) {
        self.node.sessions.end_of(self.id);
    }
}

/// An open transaction would keep a demoted LiteFS node in limbo (no replication), so none survives a demotion.
async fn end_sessions_on_demotion(fence: Arc<dyn Fence>, sessions: Arc<Sessions>, stop: CancellationToken) {
    let mut changes = fence.changes();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        if fence.writable().is_none() {
            sessions.end_all(Ended::Demoted);
        }
    }
}
