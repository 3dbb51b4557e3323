use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use diesel::connection::{Connection, SimpleConnection};
use diesel::result::{ConnectionError, ConnectionResult};
use diesel::sqlite::SqliteConnection;
use litefs_core::{Config, Mount, MountError, NodeName, Position, Role, RoleKind, RoleState, Tracker, Txid};
use litefs_rpc::client::{Client, ClientConfig, Forwarder};
use litefs_rpc::server::{ServeError, Server, ServerConfig};
use litefs_rpc::sqlite::SqliteExecutor;
use tokio::sync::watch;

use crate::connection::LiteFsConnection;
use crate::consistency::{Mark, Watermark};
use crate::io_thread::IoThread;
use crate::manager::ConnectionManager;
use crate::options::{ConnectionHook, LiteFsBuilder, Options};
use crate::primaries::Primaries;
use crate::registry;
use crate::tracking_table::{self, TrackingTable};

/// How long the connection that runs forwarded writes waits for the application's own writers, in milliseconds.
const WRITER_BUSY_TIMEOUT: u32 = 5_000;

/// Why a handle did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option has a value that cannot work.
    #[error(transparent)]
    Config(#[from] litefs_core::ConfigError),
    /// There is no LiteFS where one is required.
    #[error(transparent)]
    Tracker(#[from] litefs_core::StartError),
    /// The server could not listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// This process has a handle for this database already: use it, or establish connections by path.
    #[error("this process already has a LiteFs handle for {0}; share it (it is cheap to clone)")]
    AlreadyStarted(std::path::PathBuf),
    /// The I/O thread could not be started, or ended at once.
    #[error("cannot start the I/O thread: {0}")]
    Thread(String),
}

/// One database on LiteFS: tracks the primary, serves the other nodes' writes while this node is it, and makes
/// connections that write from anywhere.
///
/// One handle per database and process; clones are the same handle. When the last clone and the last connection are
/// gone, everything stops.
#[derive(Clone)]
pub struct LiteFs {
    shared: Arc<Shared>,
}

/// What the handle, its connections and its tasks share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) tracker: Tracker,
    pub(crate) forwarder: Arc<Forwarder<Arc<Primaries>>>,
    pub(crate) watermark: Watermark,
    server: Arc<Mutex<Option<Server>>>,
    /// Dropped last: the others' tasks run on it.
    pub(crate) io: IoThread,
}

impl LiteFs {
    /// Starts with default options and those of the environment (`LITEFS_*`, see [`LiteFsBuilder`]). `database` is a
    /// path or a SQLite `file:` URI; LiteFS's mount is the directory it lies in. Where there is no LiteFS everything
    /// runs locally.
    ///
    /// Blocks until this node's role is known, at most about 1 s.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(database: &str) -> Result<Self, StartError> {
        Self::builder(database).from_env().start()
    }

    /// Starts setting up a handle.
    pub fn builder(database: &str) -> LiteFsBuilder {
        LiteFsBuilder::new(database)
    }

    pub(crate) fn start_with(options: Options) -> Result<Self, StartError> {
        let database = options.config.database().to_owned();
        if registry::find(&database).is_some() {
            return Err(StartError::AlreadyStarted(database));
        }
        let io = IoThread::start(options.config.database_name())
            .map_err(|error| StartError::Thread(error.to_string()))?;
        let ended = || StartError::Thread("it ended".into());
        let tracker = io.wait(Tracker::start(options.config.clone())).ok_or_else(ended)??;
        let shared = Arc::new(Shared::new(options, tracker, io));
        if shared.options.serve && shared.tracker.stamp().kind() != RoleKind::Standalone {
            let starting = shared.starter().start();
            shared.io.wait(starting).ok_or_else(ended)??;
        }
        shared.spawn_tasks();
        if !registry::enter(&database, &shared) {
            return Err(StartError::AlreadyStarted(database));
        }
        Ok(Self { shared })
    }

    /// An r2d2 manager whose connections belong to this handle.
    #[must_use]
    pub fn connection_manager(&self) -> ConnectionManager {
        ConnectionManager::new(self.clone())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What SQLite says when it cannot open the file, or what the connection hook says.
    pub fn establish(&self) -> ConnectionResult<LiteFsConnection> {
        LiteFsConnection::of(Arc::clone(&self.shared))
    }

    /// What this node is now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.shared.tracker.role()
    }

    /// Wakes at each change of the role.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<RoleState> {
        self.shared.tracker.subscribe()
    }

    /// The tracker, for everything it knows: position, lag, the state of each detector.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.shared.tracker
    }

    /// Where this node takes writes of others; `None` where it does not.
    #[must_use]
    pub fn rpc_address(&self) -> Option<SocketAddr> {
        self.shared.server().as_ref().map(Server::address)
    }

    /// How many requests this process has sent to primaries. Local reads and writes leave it as it is.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.shared.forwarder.client().round_trips()
    }

    /// What a reader must have seen to see everything that this process has written: a token for another process,
    /// request or node. `None` if nothing was written and nothing is replicated here.
    ///
    /// Hand its text on and give it to [`require`](Self::require) there.
    #[must_use]
    pub fn token(&self) -> Option<Position> {
        match self.role() {
            Role::Primary => self.shared.tracker.read_position().ok(),
            _ => self.shared.watermark.marks().newest().or_else(|| self.shared.tracker.last_position()),
        }
    }

    /// Makes this process's reads wait until the local file has what `token` stands for.
    pub fn require(&self, token: Position) {
        self.shared.watermark.add(Mark { position: token, primary: None });
    }
}

impl fmt::Debug for LiteFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.shared.options.config.database();
        f.debug_struct("LiteFs")
            .field("database", &database)
            .field("role", &self.role())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(options: Options, tracker: Tracker, io: IoThread) -> Self {
        let mut client = ClientConfig::new(options.config.database_name());
        client.secret.clone_from(&options.secret);
        client.limits = options.limits.clone();
        let table = Arc::new(TrackingTable::new(&options));
        let primaries = Arc::new(Primaries { tracker: tracker.clone(), table });
        let forwarder = Forwarder::new(Arc::new(Client::new(client)), primaries, options.primary_timeout);
        Self {
            options,
            tracker,
            forwarder: Arc::new(forwarder),
            watermark: Watermark::default(),
            server: Arc::default(),
            io,
        }
    }

    /// The handle for a database URL: the one this process started, a new one from the environment where LiteFS is,
    /// none where it is not.
    pub(crate) fn for_url(url: &str) -> ConnectionResult<Option<Arc<Self>>> {
        let bad = |error: StartError| ConnectionError::BadConnection(error.to_string());
        // In-memory and temporary databases never are on LiteFS, nor is what is not a path.
        if url.is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
            return Ok(None);
        }
        let Ok(config) = Config::builder(url).build() else { return Ok(None) };
        if let Some(shared) = registry::find(config.database()) {
            return Ok(Some(shared));
        }
        if !is_litefs(&Mount::new(config.database())) {
            return Ok(None);
        }
        match LiteFs::start(url) {
            Ok(litefs) => Ok(Some(litefs.shared)),
            // Another thread was faster.
            Err(StartError::AlreadyStarted(path)) => Ok(registry::find(&path)),
            Err(error) => Err(bad(error)),
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Server>> {
        self.server.lock().expect("no code panics while it holds the server")
    }

    /// Opens a SQLite connection to the database and runs the hook on it. Blocks.
    pub(crate) fn open(&self) -> ConnectionResult<SqliteConnection> {
        self.await_first_replication()?;
        open(self.options.config.database_url(), self.options.hook.as_ref())
    }

    /// Opening a database creates it, which is the primary's to do: on a replica LiteFS refuses, and keeps an empty
    /// directory of that name. A replica that has just joined waits for the file instead, up to `primary_timeout`.
    fn await_first_replication(&self) -> ConnectionResult<()> {
        let config = &self.options.config;
        let missing = || {
            let elsewhere = matches!(self.tracker.stamp().kind(), RoleKind::Replica | RoleKind::Unknown);
            elsewhere && !config.database().exists()
        };
        if !missing() {
            return Ok(());
        }
        let (tracker, timeout) = (self.tracker.clone(), self.options.primary_timeout);
        self.io.wait(async move {
            let deadline = tokio::time::Instant::now() + timeout;
            let mut roles = tracker.subscribe();
            tokio::select! {
                _ = tracker.wait_for_txid(Txid::new(1), deadline) => {}
                _ = roles.wait_for(|state| matches!(state.role, Role::Primary | Role::Standalone)) => {}
            }
        });
        if missing() {
            let message = format!(
                "the database {} does not exist on this replica, and none was replicated within {timeout:?}: start a \
                 node that becomes the primary first",
                config.database().display()
            );
            return Err(ConnectionError::BadConnection(message));
        }
        Ok(())
    }

    fn starter(&self) -> ServerStarter {
        ServerStarter {
            tracker: self.tracker.clone(),
            address: self.options.listen,
            config: {
                let mut config = ServerConfig::new(self.options.config.database_name());
                config.secret.clone_from(&self.options.secret);
                config.allow_insecure = self.options.allow_insecure;
                config.limits = self.options.limits.clone();
                config
            },
            database_url: self.options.config.database_url().to_owned(),
            hook: self.options.hook.clone(),
            server: Arc::clone(&self.server),
        }
    }

    /// The tasks hold parts of the handle, never the handle itself: it could not be dropped otherwise.
    fn spawn_tasks(&self) {
        if self.options.serve {
            self.io.spawn(serve_when_litefs_appears(self.starter()));
        }
        if self.options.config.detectors().row {
            let table = Arc::clone(&self.forwarder.directory().table);
            let advertised = self.options.serve.then(|| self.advertised());
            self.io.spawn(tracking_table::keep(self.tracker.clone(), table, advertised));
        }
    }

    /// What this node tells the others of where to reach it.
    fn advertised(&self) -> impl Fn(&NodeName) -> String + Send + 'static {
        let (configured, fallback) = (self.options.advertise.clone(), self.options.listen);
        let server = Arc::clone(&self.server);
        move |node| {
            let listening = server.lock().ok().and_then(|server| server.as_ref().map(Server::address));
            advertised(configured.as_deref(), listening.unwrap_or(fallback), node)
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tracker.shutdown();
    }
}

/// Whether the database lies on LiteFS, alive or dead. LiteFS always has `.lag`.
fn is_litefs(mount: &Mount) -> bool {
    matches!(mount.read_lag(), Ok(Some(_)) | Err(MountError::NotConnected(_)))
        || matches!(mount.read_primary(), Ok(Some(_)))
}

/// The address for the other nodes: what was configured, a loopback address as it is, else this node's name.
fn advertised(configured: Option<&str>, listening: SocketAddr, node: &NodeName) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None if listening.ip().is_loopback() => listening.to_string(),
        None => format!("{}:{}", node.host(), listening.port()),
    }
}

fn open(url: &str, hook: Option<&ConnectionHook>) -> ConnectionResult<SqliteConnection> {
    let mut connection = SqliteConnection::establish(url)?;
    if let Some(hook) = hook {
        hook(&mut connection).map_err(ConnectionError::CouldntSetupConfiguration)?;
    }
    Ok(connection)
}

/// Everything that starting the server needs, apart from the handle.
struct ServerStarter {
    tracker: Tracker,
    address: SocketAddr,
    config: ServerConfig,
    database_url: String,
    hook: Option<ConnectionHook>,
    server: Arc<Mutex<Option<Server>>>,
}

impl ServerStarter {
    async fn start(self) -> Result<(), ServeError> {
        let (url, hook) = (self.database_url, self.hook);
        let executor = SqliteExecutor::new(
            Box::new(move || {
                let mut connection = open(&url, hook.as_ref())?;
                connection.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
                connection
                    .batch_execute(&format!("PRAGMA busy_timeout = {WRITER_BUSY_TIMEOUT}"))
                    .map_err(ConnectionError::CouldntSetupConfiguration)?;
                Ok(connection)
            }),
            self.config.limits.max_rows(),
        );
        let server = Server::start(self.address, self.config, Arc::new(self.tracker), executor).await?;
        tracing::info!(address = %server.address(), "taking forwarded writes");
        *self.server.lock().expect("no code panics while it holds the server") = Some(server);
        Ok(())
    }
}

/// LiteFS may be mounted after the application started.
async fn serve_when_litefs_appears(starter: ServerStarter) {
    let mut roles = starter.tracker.subscribe();
    while roles.borrow_and_update().role == Role::Standalone {
        if roles.changed().await.is_err() {
            return;
        }
    }
    let running = starter.server.lock().is_ok_and(|server| server.is_some());
    if !running && let Err(error) = starter.start().await {
        tracing::error!(%error, "cannot take forwarded writes");
    }
}
