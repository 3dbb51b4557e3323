//! What the handle, its connections and its tasks share. Knows no connection.

pub(crate) mod address_table;
pub(crate) mod diagnosis;
pub(crate) mod io_thread;
pub(crate) mod locator;
pub(crate) mod own_name;
pub(crate) mod read_throttle;
pub(crate) mod registry;
mod serve;
pub(crate) mod speculation;
mod start;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use diesel::result::{ConnectionError, ConnectionResult, DatabaseErrorKind, Error as DieselError};
use diesel::sqlite::SqliteConnection;
use litefs_core::{Mount, MountError, NodeName, Presence, Role, RoleKind, Tracker, Txid};
use litefs_rpc::client::{Client, ClientConfig, Forwarder};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::server::{Server, ServerConfig};
use litefs_rpc::sqlite::{Checkpointer, Opened, application_functions};

use self::address_table::TrackingTable;
use self::diagnosis::explained;
pub(crate) use self::serve::read_positions;
use self::serve::{ServerStarter, open, serve_when_litefs_appears};
use crate::consistency::Watermark;
use crate::error::mount_lost;
use crate::loss::ack_log::AckLog;
use crate::loss::detector::LossDetector;
use crate::node::io_thread::IoThread;
use crate::node::locator::AddressLocator;
use crate::node::own_name::name_or_host;
use crate::node::read_throttle::{ReadThrottle, follow};
use crate::node::speculation::Turns;
use crate::options::Options;

/// The way to the primary.
pub(crate) type Forwarding = Forwarder<Arc<AddressLocator>>;

/// What the handle, its connections and its tasks share.
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) tracker: Tracker,
    pub(crate) forwarder: Arc<Forwarding>,
    pub(crate) watermark: Watermark,
    pub(crate) read_throttle: Arc<ReadThrottle>,
    pub(crate) ack_log: Arc<AckLog>,
    pub(crate) started: Instant,
    pub(crate) turns: Turns,
    server: Arc<Mutex<Option<Arc<Server>>>>,
    checkpointer: Arc<OnceLock<Arc<Checkpointer>>>,
    functions: OnceLock<HashSet<String>>,
    /// Dropped last: the others' tasks run on it.
    pub(crate) io: IoThread,
}

impl Node {
    pub(super) fn new(options: Options, tracker: Tracker, io: IoThread) -> Self {
        let mut client = ClientConfig::new(options.config.database_name());
        client.secret.clone_from(&options.secret);
        client.limits = options.limits.clone();
        client.lanes = options.lanes;
        let table = Arc::new(TrackingTable::new(&options));
        let address_locator = Arc::new(AddressLocator { tracker: tracker.clone(), table });
        let forwarder =
            Forwarder::new(Arc::new(Client::new(client)), address_locator, options.primary_timeout);
        let ack_log = Arc::new(AckLog::new(options.outcome_retention));
        Self {
            ack_log,
            options,
            tracker,
            forwarder: Arc::new(forwarder),
            watermark: Watermark::default(),
            read_throttle: Arc::default(),
            started: Instant::now(),
            turns: Turns::default(),
            server: Arc::default(),
            checkpointer: Arc::default(),
            functions: OnceLock::new(),
            io,
        }
    }

    pub(super) fn server(&self) -> std::sync::MutexGuard<'_, Option<Arc<Server>>> {
        self.server.lock().expect("no code panics while it holds the server")
    }

    pub(crate) fn server_handle(&self) -> Option<Arc<Server>> {
        self.server().clone()
    }

    /// Whether this process has the writer.
    pub(crate) fn serves(&self) -> bool {
        self.server().is_some()
    }

    /// The functions that the hook registers, as seen on one of the handle's connections.
    /// `None`: SQLite could not be asked just now.
    pub(crate) fn functions(&self, connection: &mut SqliteConnection) -> Option<&HashSet<String>> {
        if self.functions.get().is_none() {
            let functions = application_functions(connection).ok()?;
            let _ = self.functions.set(functions);
        }
        self.functions.get()
    }

    /// Opens a SQLite connection to `url`, the database's or one within it, and runs the hook on
    /// it. Blocks.
    pub(crate) fn open(&self, url: &str) -> ConnectionResult<Opened> {
        self.check_mounted()?;
        self.await_first_replication()?;
        let checkpointed = self.checkpointer.get().is_some();
        let opened = open(url, self.options.on_connection.as_ref(), checkpointed);
        let opened = opened.map_err(|error| self.explain(error))?;
        opened.native.read_positions_by(read_positions(self.tracker.clone()));
        Ok(opened)
    }

    fn check_mounted(&self) -> ConnectionResult<()> {
        match self.tracker.presence() {
            Presence::Lost => Err(ConnectionError::CouldntSetupConfiguration(mount_lost())),
            _ => Ok(()),
        }
    }

    /// A connection that cannot be opened is told as a statement that fails.
    fn explain(&self, error: ConnectionError) -> ConnectionError {
        let explain = |error| ConnectionError::CouldntSetupConfiguration(explained(self, error));
        match error {
            _ if self.tracker.stamp().kind() == RoleKind::Standalone => error,
            ConnectionError::CouldntSetupConfiguration(error) => explain(error),
            ConnectionError::BadConnection(message)
                if Symptom::of(&message) != Symptom::Statement =>
            {
                explain(DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message)))
            }
            error => error,
        }
    }

    /// After each commit of this process on the local file.
    pub(crate) fn committed_here(&self) {
        if let Some(checkpointer) = self.checkpointer.get() {
            checkpointer.committed(0);
        }
    }

    /// Opening a database creates it, which is the primary's to do: on a replica LiteFS refuses,
    /// and keeps an empty directory of that name. A replica that has just joined waits for the file
    /// instead, up to `primary_timeout`.
    fn await_first_replication(&self) -> ConnectionResult<()> {
        let config = &self.options.config;
        let missing = || {
            let elsewhere =
                matches!(self.tracker.stamp().kind(), RoleKind::Replica | RoleKind::Unknown);
            elsewhere && !config.database().exists()
        };
        if !missing() {
            return Ok(());
        }
        let (tracker, timeout) = (self.tracker.clone(), self.options.primary_timeout);
        self.io.wait(async move {
            let deadline = tokio::time::Instant::now() + timeout;
            let mut roles = tracker.subscribe();
            let writable =
                roles.wait_for(|state| matches!(state.role, Role::Primary | Role::Standalone));
            tokio::select! {
                _ = tracker.wait_for_txid(Txid::new(1), deadline) => {}
                _ = writable => {}
            }
        });
        if missing() {
            let tracker = self.tracker.clone();
            self.io.wait(async move { tracker.confirm().await });
            self.check_mounted()?;
            let message = format!(
                "the database {} does not exist on this replica, and none was replicated within \
                 {timeout:?}: start a node that becomes the primary first",
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
                config.prove_commits = self.options.prove_commits;
                config
            },
            database_url: self.options.config.database_url().to_owned(),
            hook: self.options.on_connection.clone(),
            retention: self.options.outcome_retention,
            server: Arc::clone(&self.server),
            checkpointer: Arc::clone(&self.checkpointer),
        }
    }

    /// The tasks hold parts of the handle, never the handle itself: it could not be dropped
    /// otherwise.
    pub(super) fn spawn_tasks(&self) {
        if self.options.serve {
            self.io.spawn(serve_when_litefs_appears(self.starter()));
        }
        let client = Arc::clone(self.forwarder.client());
        self.io.spawn(leave_former_primaries(self.tracker.clone(), client));
        let report = {
            let (tracker, server, advertised) =
                (self.tracker.clone(), Arc::clone(&self.server), self.advertised());
            move || {
                let own = name_or_host(&tracker);
                let serves = server.lock().is_ok_and(|server| server.is_some());
                (own.to_string(), serves.then(|| advertised(&own)))
            }
        };
        let (tracker, forwarder, read_throttle) =
            (self.tracker.clone(), Arc::clone(&self.forwarder), Arc::clone(&self.read_throttle));
        let stop = self.tracker.stopped();
        let loss_detector = LossDetector {
            ack_log: Arc::clone(&self.ack_log),
            tracker: self.tracker.clone(),
            table: Arc::clone(&self.forwarder.locator().table),
            database_url: self.options.config.database_url().to_owned(),
            hear: self.options.on_lost_writes.clone(),
        };
        self.io.spawn(follow(tracker, forwarder, read_throttle, loss_detector, report, stop));
        if self.options.config.detectors().row {
            let table = Arc::clone(&self.forwarder.locator().table);
            let advertised = self.options.serve.then(|| self.advertised());
            self.io.spawn(address_table::keep(self.tracker.clone(), table, advertised));
        }
    }

    /// While this node gives its place to another: waits until it is known where writes go, at most
    /// for a moment.
    pub(crate) fn await_handoff(&self) {
        let is_under_way = || self.server().as_deref().is_some_and(Server::is_handing_over);
        if !is_under_way() {
            return;
        }
        let deadline = Instant::now() + self.options.primary_timeout;
        while is_under_way() && Instant::now() < deadline {
            std::thread::park_timeout(HANDOVER_LOOK);
        }
    }

    /// What this node tells the others of where to reach it.
    fn advertised(&self) -> impl Fn(&NodeName) -> String + Send + 'static {
        let (configured, fallback) = (self.options.advertise.clone(), self.options.listen);
        let server = Arc::clone(&self.server);
        move |node| {
            let listening =
                server.lock().ok().and_then(|server| server.as_deref().map(Server::address));
            advertised(configured.as_deref(), listening.unwrap_or(fallback), node)
        }
    }
}

/// How often a local write looks whether a handoff is over. One takes some milliseconds.
const HANDOVER_LOOK: Duration = Duration::from_millis(1);

/// How long a node that is not the primary any more may take to answer what it was asked before.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Cuts the connection to a node that has stopped being the primary: who waits for its answer,
/// perhaps in vain, goes on to the next one.
async fn leave_former_primaries(tracker: Tracker, client: Arc<Client>) {
    let mut roles = tracker.subscribe();
    let mut last = None;
    loop {
        let primary = match &roles.borrow_and_update().role {
            Role::Replica { primary } => Some(primary.clone()),
            Role::Primary | Role::Standalone => None,
            // It may come back as it was.
            Role::Unknown => last.clone(),
        };
        if primary != last {
            last = primary;
            if let Some(link) = client.current() {
                let still = last.as_ref().map(|primary| tracker.rpc_address(primary));
                if still.as_deref() != Some(link.address()) {
                    tokio::spawn(async move {
                        tokio::time::sleep(LAST_WORDS).await;
                        link.close();
                    });
                }
            }
        }
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            () = tracker.stopped().cancelled_owned() => return,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tracker.shutdown();
        if let Some(server) = self.server().take() {
            server.close();
        }
    }
}

/// Whether the database lies on LiteFS, alive or dead. LiteFS always has `.lag`.
fn is_litefs(mount: &Mount) -> bool {
    matches!(mount.read_lag(), Ok(Some(_)) | Err(MountError::NotConnected(_)))
        || matches!(mount.read_primary(), Ok(Some(_)))
}

/// The address for the other nodes: what was configured, a loopback address as it is, else this
/// node's name.
fn advertised(configured: Option<&str>, listening: SocketAddr, node: &NodeName) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None if listening.ip().is_loopback() => listening.to_string(),
        None => format!("{}:{}", node.host(), listening.port()),
    }
}
