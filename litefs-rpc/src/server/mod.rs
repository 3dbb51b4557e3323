//! The server that a primary runs for the other nodes.

mod fence;
mod followers;
mod handler;
mod handover;
mod local;
mod queue;
mod sessions;
mod writer;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures::StreamExt;
use litefs_core::Position;
use tarpc::server::{BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use fence::Fence;

use self::followers::Followers;
use self::handler::{Handler, Node};
use self::handover::Successors;
use self::queue::Queue;
use self::sessions::{ConnectionId, Ended, Sessions};
use self::writer::Writer;
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
    /// A thread could not be started.
    #[error("cannot start the server's threads: {0}")]
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
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Binds `address` and serves, on a thread of its own and one for the executor. What it asks of the fence runs on the
    /// current tokio runtime.
    ///
    /// # Errors
    /// See [`ServeError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
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
        let followers = Arc::new(Followers::default());
        let handing_over = Arc::new(AtomicBool::new(false));
        let successors = Successors::new(&config, Arc::clone(&followers), Arc::clone(&handing_over));
        let (limits, prove) = (config.limits.clone(), config.prove_commits);
        let writer = Writer::new(
            executor,
            Arc::clone(&fence),
            Arc::clone(&sessions),
            limits,
            prove,
            successors.into(),
            Arc::clone(&followers),
        );
        let queue = Queue::start(Box::new(writer), config.limits.queue).map_err(ServeError::Thread)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let demoted = end_sessions_on_demotion(Arc::clone(&fence), Arc::clone(&sessions));
        tokio::spawn(stop.clone().run_until_cancelled_owned(demoted));
        let (keeper, told) = (Arc::clone(&followers), Arc::clone(&fence));
        let kept = async move { keeper.keep_history(&*told).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(kept));
        let node = Arc::new(Node { config: Arc::new(config), fence, sessions, queue, followers });
        let acceptor = Acceptor {
            node: Arc::clone(&node),
            stop: stop.clone(),
            tasks: tasks.clone(),
            open: Arc::default(),
            last_id: AtomicU64::new(0),
        };
        let thread = Mutex::new(Some(acceptor.start(listener).map_err(ServeError::Thread)?));
        Ok(Self { address, stop, tasks, node, handing_over, thread })
    }

    /// Where the server listens; the port is the real one where port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many writes and transactions wait for the writer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.node.queue.waiting()
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

    /// Stops accepting and closes every connection. Afterwards the port is free. Blocks until then, except inside a tokio
    /// runtime, which the serving thread may need to come to an end.
    pub fn close(&self) {
        self.stop.cancel();
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread.filter(|_| Handle::try_current().is_err()) {
            let _ = thread.join();
        }
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
        self.close();
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
    /// The thread on which connections are served. It ends after the server has been stopped and they have ended.
    fn start(self, listener: TcpListener) -> std::io::Result<JoinHandle<()>> {
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
async fn end_sessions_on_demotion(fence: Arc<dyn Fence>, sessions: Arc<Sessions>) {
    let mut changes = fence.changes();
    while changes.changed().await.is_ok() {
        if fence.writable().is_none() {
            sessions.end_all(Ended::Demoted);
        }
    }
}
