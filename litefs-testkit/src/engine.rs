//! A running node: its databases, its role, and its threads.

mod assignment;
pub(crate) mod primary;
pub(crate) mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::context::{Context, Role};
use crate::database::{Database, is_database_name};
use crate::error::Error;
use crate::runtime::ServerRuntime;
use crate::status::NodeStatus;
use crate::sync::locked;
use crate::wire::Peer;
use assignment::Assignment;

/// How often `.lag` is updated.
const LAG_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node that is to become primary waits for its replication thread to stop.
const PARK_LIMIT: Duration = Duration::from_secs(10);

/// One incarnation of a node, from start to death.
pub(crate) struct Engine {
    pub(crate) context: Arc<Context>,
    pub(crate) peer: Peer,
    databases: Mutex<BTreeMap<String, Arc<Database>>>,
    assignment: Mutex<Assignment>,
    /// The connected replicas, by `Litefs-Id`.
    replicas: Mutex<BTreeSet<String>>,
    /// `Litefs-Id` of the replica that is to receive the lease.
    handoff_target: Mutex<Option<String>>,
    /// The replica that received the lease.
    successor: Mutex<Option<Peer>>,
    /// Counts how often this node has stopped serving replicas.
    epoch: AtomicU64,
    connected: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
    server: Mutex<Option<ServerRuntime>>,
}

impl Engine {
    /// A node without a role and without servers. Opens the databases in its directory.
    pub(crate) fn open(
        context: Context,
        http_addr: SocketAddr,
        replication_addr: SocketAddr,
    ) -> Result<Arc<Self>, Error> {
        let context = Arc::new(context);
        let peer = Peer {
            name: context.identity.name.clone(),
            id: context.identity.id.clone(),
            http_url: format!("http://{http_addr}"),
            replication_addr: replication_addr.to_string(),
        };
        let engine = Arc::new(Self {
            context,
            peer,
            databases: Mutex::default(),
            assignment: Mutex::default(),
            replicas: Mutex::default(),
            handoff_target: Mutex::default(),
            successor: Mutex::default(),
            epoch: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            sockets: Mutex::default(),
            server: Mutex::default(),
        });
        engine.open_found().map_err(Error::io("open the node's databases"))?;
        // A killed process leaves its last `.lag` and `.primary` behind.
        engine.context.files.set_primary(None).map_err(Error::io("remove .primary"))?;
        engine.context.write_lag();
        let weak = Arc::downgrade(&engine);
        engine.context.on_death(move || clear_away(&weak, replication_addr));
        Ok(engine)
    }

    /// Stores the HTTP server until the node dies.
    pub(crate) fn keep_server(&self, server: ServerRuntime) {
        *locked(&self.server) = Some(server);
    }

    /// Updates `.lag` until the node dies.
    pub(crate) fn keep_lag(&self) {
        while !self
            .context
            .signal
            .wait_until(Instant::now() + LAG_INTERVAL, || self.context.is_dead())
        {
            self.context.write_lag();
        }
    }

    fn open_found(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.context.dir())? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if is_database_name(&name) && entry.file_type()?.is_file() {
                self.database(&name, true)?;
            }
        }
        Ok(())
    }

    /// The database `name`; if `create`, it is created when it does not exist.
    pub(crate) fn database(&self, name: &str, create: bool) -> io::Result<Option<Arc<Database>>> {
        let mut databases = locked(&self.databases);
        if let Some(database) = databases.get(name) {
            return Ok(Some(Arc::clone(database)));
        }
        if !create || self.context.is_dead() {
            return Ok(None);
        }
        let database = Arc::new(Database::open(&self.context, name)?);
        databases.insert(name.to_owned(), Arc::clone(&database));
        Ok(Some(database))
    }

    /// All databases.
    pub(crate) fn databases(&self) -> Vec<Arc<Database>> {
        locked(&self.databases).values().cloned().collect()
    }

    /// Stops following, discards what has not been applied, and takes the lease. First takes the
    /// databases in `back_to` back to that transaction.
    pub(crate) fn become_primary(&self, back_to: &BTreeMap<String, u64>) -> Result<(), Error> {
        self.assign(Assignment::parked());
        let parked = || self.context.is_dead() || locked(&self.assignment).is_idle();
        if !self.context.signal.wait_until(Instant::now() + PARK_LIMIT, parked) {
            return Err(Error::Timeout {
                waited: PARK_LIMIT,
                what: "the node to stop following".into(),
            });
        }
        back_to.iter().try_for_each(|(database, txid)| self.go_back(database, *txid))?;
        self.take_lease()
    }

    fn go_back(&self, name: &str, txid: u64) -> Result<(), Error> {
        let database = self.database(name, false).map_err(Error::io("open a database"))?;
        let deadline = Instant::now() + PARK_LIMIT;
        match database {
            Some(database) if database.position().txid > txid => {
                database.rewind(txid, || Instant::now() > deadline)
            }
            _ => Ok(()),
        }
    }

    /// Becomes primary at once.
    fn take_lease(&self) -> Result<(), Error> {
        if self.context.is_dead() {
            return Err(Error::Dead(self.peer.name.clone()));
        }
        *locked(&self.handoff_target) = None;
        *locked(&self.successor) = None;
        for name in &self.context.identity.databases {
            let made = self
                .database(name, true)
                .and_then(|database| database.map_or(Ok(()), |d| d.initialize()));
            made.map_err(Error::io("create a database"))?;
        }
        self.context.open_gate();
        self.context.set_role(Role::Primary);
        Ok(())
    }

    /// Releases the lease but keeps sending captured commits to connected replicas.
    pub(crate) fn drain(&self) {
        self.context.close_gate(true);
        self.context.set_role(Role::None);
    }

    /// Follows `primary`, or no node. On a primary this demotes in the middle of any SQLite
    /// transaction.
    pub(crate) fn follow(&self, primary: Option<Peer>) {
        self.context.close_gate(false);
        self.context.set_role(Role::None);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.assign(Assignment::to(primary));
    }

    /// Marks a connected replica as the next primary; its stream performs the handoff. Returns
    /// whether it is connected.
    pub(crate) fn hand_off_to(&self, id: &str) -> bool {
        let connected = locked(&self.replicas).contains(id);
        if connected {
            *locked(&self.handoff_target) = Some(id.to_owned());
            self.context.signal.bump();
        }
        connected
    }

    /// The primary that this node follows or tries to follow.
    pub(crate) fn primary(&self) -> Option<Peer> {
        locked(&self.assignment).primary().cloned()
    }

    fn assign(&self, new: Assignment) {
        locked(&self.assignment).replace(new);
        self.context.signal.bump();
    }

    /// The mount dies; this process does not.
    pub(crate) fn lose_mount(&self) {
        let databases = self.databases();
        self.context.unmount(databases.iter().map(|database| database.name.as_str()));
        self.context.signal.bump();
    }

    /// The status that a controlling test asks for.
    pub(crate) fn status(&self) -> NodeStatus {
        let settings = self.context.faults.now();
        let alive = !self.context.is_dead();
        NodeStatus {
            peer: self.peer.clone(),
            alive,
            is_primary: alive && self.context.role() == Role::Primary,
            primary: self.primary().map(|primary| primary.name),
            connected: alive && self.connected.load(Ordering::Acquire),
            stalled: settings.stalled,
            frozen: settings.frozen,
            cut: settings.cut,
            positions: self
                .databases()
                .into_iter()
                .map(|d| (d.name.clone(), d.position()))
                .collect(),
        }
    }

    /// Stores a socket to be closed when the node dies.
    fn keep_socket(&self, socket: &TcpStream) -> io::Result<()> {
        let mut sockets = locked(&self.sockets);
        // Drop sockets whose peer is gone.
        sockets.retain(|socket| socket.peer_addr().is_ok());
        sockets.push(socket.try_clone()?);
        drop(sockets);
        // The node may have died meanwhile, without closing this socket.
        if self.context.is_dead() { socket.shutdown(std::net::Shutdown::Both) } else { Ok(()) }
    }
}

/// Runs once when the node dies: removes the special files and closes every socket.
fn clear_away(engine: &Weak<Engine>, replication_addr: SocketAddr) {
    let Some(engine) = engine.upgrade() else { return };
    let databases = engine.databases();
    engine.context.files.remove_all(databases.iter().map(|database| database.name.as_str()));
    databases.iter().for_each(|database| database.release_file());
    drop(locked(&engine.server).take());
    for socket in locked(&engine.sockets).drain(..) {
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
    // Wakes the thread that accepts connections.
    let _ = TcpStream::connect(replication_addr);
}
