//! The server on each node: it runs the requests of the other nodes while this node is the primary.

mod accept;
mod block;
mod commit_barrier;
mod config;
mod handler;
mod handoff;
mod job;
mod node;
mod queue;
mod replica_reads;
mod replicas;
mod role_guard;
mod sessions;
mod verdict;
mod writer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use litefs_core::Position;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{ServeError, ServerConfig};
pub use role_guard::RoleGuard;

use self::accept::Acceptor;
use self::commit_barrier::CommitBarrier;
use self::handoff::Successors;
use self::node::Node;
use self::queue::Queue;
use self::replica_reads::ReplicaReads;
use self::replicas::Replicas;
use self::sessions::{Ended, Sessions};
use self::writer::Writer;
use crate::executor::Executor;
use crate::wire::{Reply, Request, ServerError};

/// A running server. Dropping it closes the port and every connection; transactions still open roll
/// back.
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
    /// Binds `address` and serves, on one thread for connections, one for the executor, and some
    /// for reads ([`Limits::readers`](crate::Limits::readers)). The role guard is used on the
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
        role_guard: Arc<dyn RoleGuard>,
        executor: E,
    ) -> Result<Self, ServeError> {
        let listener = bind(address, &config).await?;
        let address = listener.local_addr().map_err(|error| ServeError::Listen(address, error))?;
        let handoff_running = Arc::new(AtomicBool::new(false));
        let node = Arc::new(node(config, role_guard, executor, &handoff_running)?);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let demoted = release_on_demotion(
            Arc::clone(&node.role_guard),
            Arc::clone(&node.sessions),
            node.replica_reads.clone(),
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(demoted));
        let (replicas, role_guard) = (Arc::clone(&node.replicas), Arc::clone(&node.role_guard));
        let history = async move { replicas.track_history(&*role_guard).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(history));
        let connections = node.config.limits.connections.min(Semaphore::MAX_PERMITS);
        let acceptor = Acceptor {
            node: Arc::clone(&node),
            stop: stop.clone(),
            tasks: tasks.clone(),
            permits: Arc::new(Semaphore::new(connections)),
            last_id: AtomicU64::new(0),
        };
        let thread = Mutex::new(Some(acceptor.start(listener).map_err(ServeError::Thread)?));
        Ok(Self { address, stop, tasks, node, handoff_running, thread })
    }

    /// The address on which the server listens. For port 0 it has the port that was assigned.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of queued writes and transactions.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.node.queue.waiting()
    }

    /// Whether a handoff is in progress on this node. A local write should wait for its end and
    /// then ask again where the primary is.
    #[must_use]
    pub fn is_handing_off(&self) -> bool {
        self.handoff_running.load(Ordering::Acquire)
    }

    /// Makes the node `to`, or the replica with the highest position, the primary without losing a
    /// write: the writer holds SQLite's write lock until that node has every commit and is the
    /// primary. Requests that are queued meanwhile are forwarded to it. Returns its name.
    ///
    /// # Errors
    /// [`ServerError::HandoffFailed`], [`ServerError::NotPrimary`]. Then the primary has not
    /// changed.
    pub async fn handoff(
        &self,
        to: Option<String>,
        deadline: Instant,
    ) -> Result<String, ServerError> {
        self.node.handoff(to, deadline).await
    }

    /// Runs one autocommit write as if another node had sent it. If the writer is idle it runs on
    /// the calling thread, otherwise the write shares a commit with the queued ones. Blocks, at
    /// most until `deadline`.
    ///
    /// # Errors
    /// Those of a forwarded write. [`ServerError::Unconfirmed`] if it is not answered in time.
    pub fn write(&self, request: Request, deadline: Instant) -> Result<Reply, ServerError> {
        self.node.write(request, deadline)
    }

    /// Returns once `replicas` replicas have reached `position`.
    ///
    /// # Errors
    /// [`ServerError::NotReplicated`] at the deadline.
    pub async fn replicated(
        &self,
        position: Position,
        replicas: usize,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        self.node.replicas.wait_for_position(position, replicas, deadline).await
    }

    /// Stops accepting and closes every connection. Afterwards the port is free. Blocks until then,
    /// except inside a tokio runtime, which the serving thread may need in order to end.
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

async fn bind(address: SocketAddr, config: &ServerConfig) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() && config.secret.is_none() && !config.allow_insecure {
        return Err(ServeError::Insecure(address));
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ServeError::AddressInUse(address),
        _ => ServeError::Listen(address, error),
    })
}

/// Builds what all connections share, and starts the writer's thread.
fn node<E: Executor>(
    config: ServerConfig,
    role_guard: Arc<dyn RoleGuard>,
    executor: E,
    handoff_running: &Arc<AtomicBool>,
) -> Result<Node, ServeError> {
    let sessions = Arc::new(Sessions::default());
    let replicas = Arc::new(Replicas::default());
    let commits = Arc::new(CommitBarrier::default());
    let successors = Successors::new(&config, Arc::clone(&replicas), Arc::clone(handoff_running));
    let readers = executor.readers();
    let replica_reads =
        ReplicaReads::new(readers, &role_guard, &commits, handoff_running, &config.limits);
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
    Ok(Node {
        config: Arc::new(config),
        role_guard,
        sessions,
        queue,
        replica_reads: replica_reads.map(Arc::new),
        replicas,
    })
}

/// Ends open transactions and closes idle connections at each demotion. An open transaction would
/// stop replication on a demoted LiteFS node, and an open connection would keep its mount busy.
async fn release_on_demotion(
    role_guard: Arc<dyn RoleGuard>,
    sessions: Arc<Sessions>,
    replica_reads: Option<Arc<ReplicaReads>>,
) {
    let mut changes = role_guard.changes();
    while changes.changed().await.is_ok() {
        if role_guard.writable().is_none() {
            sessions.end_all(Ended::Demoted);
            replica_reads.iter().for_each(|reads| reads.close_idle());
        }
    }
}
