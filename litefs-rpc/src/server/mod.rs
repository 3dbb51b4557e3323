//! The server that a primary runs for the other nodes.

mod accept;
mod commits;
mod handler;
mod handoff;
mod local;
mod queue;
mod reading;
mod replicas;
mod role_guard;
mod sessions;
mod verdict;
mod writer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use litefs_core::Position;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use role_guard::RoleGuard;

use self::accept::Acceptor;
use self::commits::Commits;
use self::handler::Node;
use self::handoff::Successors;
use self::queue::Queue;
use self::reading::Reading;
use self::replicas::Replicas;
use self::sessions::{Ended, Sessions};
use self::writer::Writer;
use crate::executor::Executor;
use crate::limits::Limits;
use crate::secret::Secret;
use crate::wire::ServerError;

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
    handoff_running: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Binds `address` and serves, on a thread of its own, one for the executor, and some for reads ([`Limits::readers`]).
    /// What it asks of the role guard runs on the current tokio runtime.
    ///
    /// # Errors
    /// See [`ServeError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start<E: Executor>(
        address: SocketAddr,
        config: ServerConfig,
        role_guard: Arc<dyn RoleGuard>,
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
        let replicas = Arc::new(Replicas::default());
        let handoff_running = Arc::new(AtomicBool::new(false));
        let successors = Successors::new(&config, Arc::clone(&replicas), Arc::clone(&handoff_running));
        let commits = Arc::new(Commits::default());
        let reading =
            Reading::new(executor.readers(), &role_guard, &commits, &handoff_running, &config.limits);
        let reading = reading.map(Arc::new);
        let writer = Writer::new(
            executor,
            &config,
            Arc::clone(&role_guard),
            Arc::clone(&sessions),
            successors.into(),
            Arc::clone(&replicas),
            commits,
        );
        let queue = Queue::start(Box::new(writer), config.limits.queue).map_err(ServeError::Thread)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let demoted = let_go_on_demotion(Arc::clone(&role_guard), Arc::clone(&sessions), reading.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(demoted));
        let (keeper, told) = (Arc::clone(&replicas), Arc::clone(&role_guard));
        let kept = async move { keeper.keep_history(&*told).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(kept));
        let node =
            Arc::new(Node { config: Arc::new(config), role_guard, sessions, queue, reading, replicas });
        let acceptor = Acceptor {
            node: Arc::clone(&node),
            stop: stop.clone(),
            tasks: tasks.clone(),
            open: Arc::default(),
            last_id: AtomicU64::new(0),
        };
        let thread = Mutex::new(Some(acceptor.start(listener).map_err(ServeError::Thread)?));
        Ok(Self { address, stop, tasks, node, handoff_running, thread })
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
        self.handoff_running.load(Ordering::Acquire)
    }

    /// Gives the primary's place to the node named, or to the replica that has come furthest, without losing anything:
    /// nobody writes from the moment the writer and SQLite's lock are held until the other node has every commit and is
    /// the primary. What is queued meanwhile is sent on to it. Returns its name.
    ///
    /// # Errors
    /// [`ServerError::HandoffFailed`], [`ServerError::NotPrimary`]; then this node is the primary as before.
    pub async fn handoff(
        &self,
        to: Option<String>,
        deadline: std::time::Instant,
    ) -> Result<String, ServerError> {
        self.node.handoff(to, deadline).await
    }

    /// Returns once `replicas` replicas have reached `position`.
    ///
    /// # Errors
    /// [`ServerError::NotReplicated`] at the deadline.
    pub async fn replicated(
        &self,
        position: Position,
        replicas: usize,
        deadline: std::time::Instant,
    ) -> Result<(), ServerError> {
        self.node.replicas.reach(position, replicas, deadline).await
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

/// An open transaction would keep a demoted LiteFS node in limbo (no replication), so none survives a demotion. Nor do
/// connections that nobody uses: they would keep the mount from going.
async fn let_go_on_demotion(
    role_guard: Arc<dyn RoleGuard>,
    sessions: Arc<Sessions>,
    reading: Option<Arc<Reading>>,
) {
    let mut changes = role_guard.changes();
    while changes.changed().await.is_ok() {
        if role_guard.writable().is_none() {
            sessions.end_all(Ended::Demoted);
            reading.iter().for_each(|reading| reading.forget());
        }
    }
}
