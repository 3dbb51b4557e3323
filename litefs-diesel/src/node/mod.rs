//! What the handle, its connections and its tasks share. Knows no connection.
//!
//! [`Node`] is the shared state. `start` makes one, `tasks` spawns its tasks on the `io_thread`:
//! `serve` the server, `follow` the long poll to the primary, `address_table` the tracking row.
//! `open` opens SQLite connections for it. `primary` calls the primary.

mod address_table;
pub(crate) mod diagnosis;
mod follow;
pub(crate) mod io_thread;
mod locator;
mod loss_detector;
mod open;
pub(crate) mod own_name;
mod primary;
mod read_throttle;
mod registry;
mod serve;
pub(crate) mod speculation;
mod sqlite;
mod start;
mod tasks;
mod visibility;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use diesel::sqlite::SqliteConnection;
use litefs_core::Tracker;
use litefs_rpc::client::{Client, ClientConfig, Forwarder};
use litefs_rpc::server::Server;
use litefs_rpc::sqlite::{Checkpointer, application_functions};

use self::address_table::TrackingTable;
use self::io_thread::IoThread;
use self::locator::{AddressLocator, Forwarding};
pub(crate) use self::primary::Primary;
use self::read_throttle::ReadThrottle;
use self::speculation::Turns;
pub(crate) use self::sqlite::read_positions;
pub(crate) use self::visibility::{Visibility, make_visible};
use crate::consistency::Watermark;
use crate::loss::ack_log::AckLog;
use crate::options::Options;

/// What the handle, its connections and its tasks share.
pub(crate) struct Node {
    pub(crate) options: Options,
    /// The [router's](crate::Router::reads_locally) answer.
    pub(crate) reads_locally: bool,
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
    /// Dropped last: the tasks of the fields above run on it.
    pub(crate) io: IoThread,
}

impl Node {
    fn new(options: Options, tracker: Tracker, io: IoThread) -> Self {
        let mut client = ClientConfig::new(options.config.database_name());
        client.secret.clone_from(&options.secret);
        client.limits = options.limits.clone();
        client.exclusive_connections = options.exclusive_connections;
        let table = Arc::new(TrackingTable::new(&options));
        let address_locator = Arc::new(AddressLocator { tracker: tracker.clone(), table });
        let forwarder =
            Forwarder::new(Arc::new(Client::new(client)), address_locator, options.primary_timeout);
        let ack_log = Arc::new(AckLog::new(options.outcome_retention));
        Self {
            ack_log,
            reads_locally: options.router.reads_locally(),
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

    /// The primary, wherever it is.
    pub(crate) fn primary(&self) -> Primary {
        let (forwarder, server) = (Arc::clone(&self.forwarder), Arc::clone(&self.server));
        Primary { forwarder, server }
    }

    /// Whether this process has the writer.
    pub(crate) fn serves(&self) -> bool {
        self.server().is_some()
    }

    /// The functions that the hook registers, as seen on one of the handle's connections.
    /// `None`: the query for them failed.
    pub(crate) fn functions(&self, connection: &mut SqliteConnection) -> Option<&HashSet<String>> {
        if self.functions.get().is_none() {
            let functions = application_functions(connection).ok()?;
            let _ = self.functions.set(functions);
        }
        self.functions.get()
    }

    /// To be called after each commit of this process on the local file.
    pub(crate) fn committed_here(&self) {
        if let Some(checkpointer) = self.checkpointer.get() {
            checkpointer.committed(0);
        }
    }

    /// Waits until a handoff of this node is over, at most `primary_timeout`.
    pub(crate) fn await_handoff(&self) {
        let is_under_way = || self.server().as_deref().is_some_and(Server::is_handing_off);
        if !is_under_way() {
            return;
        }
        let deadline = Instant::now() + self.options.primary_timeout;
        while is_under_way() && Instant::now() < deadline {
            std::thread::park_timeout(HANDOFF_POLL);
        }
    }
}

/// How often a local write checks whether a handoff is over. A handoff takes some milliseconds.
const HANDOFF_POLL: Duration = Duration::from_millis(1);

impl Drop for Node {
    fn drop(&mut self) {
        self.tracker.shutdown();
        if let Some(server) = self.server().take() {
            server.close();
        }
    }
}
