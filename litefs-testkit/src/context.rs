//! The state that the databases, servers and threads of one running node share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::events::{Delivery, Event, Listeners, RoleData};
use crate::faults::{EventStreamFault, Faults};
use crate::locks::Owner;
use crate::special::SpecialFiles;
use crate::sync::{Signal, locked};

/// How long an orderly demotion waits for a commit that is between its last WAL write and its
/// unlock.
const IN_FLIGHT_LIMIT: Duration = Duration::from_secs(2);

/// A node's names, ids and directories.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// LiteFS's `lease.hostname`.
    pub(crate) name: String,
    /// `Litefs-Id`: 16 upper-case hexadecimal digits, new at each start.
    pub(crate) id: String,
    /// `Litefs-Cluster-Id`.
    pub(crate) cluster_id: String,
    /// Whether it may become primary by `POST /promote`.
    pub(crate) candidate: bool,
    /// The directory of the mount.
    pub(crate) dir: PathBuf,
    /// The directory for the files that LiteFS would keep in its data directory.
    pub(crate) data_dir: PathBuf,
    /// The databases that the node creates when it becomes primary.
    pub(crate) databases: Vec<String>,
}

/// A node's role, as LiteFS publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// No primary is known.
    None,
    /// The node holds the lease.
    Primary,
    /// The node is connected, or trying to connect, to the node of this name.
    Replica(String),
}

impl Role {
    fn data(&self) -> RoleData {
        let hostname = self.primary_name().map(str::to_owned);
        RoleData { is_primary: *self == Self::Primary, hostname }
    }

    /// The primary's name, on a replica.
    pub(crate) fn primary_name(&self) -> Option<&str> {
        match self {
            Self::Replica(name) => Some(name),
            Self::None | Self::Primary => None,
        }
    }
}

/// Whether SQLite may write, and which connections are committing.
#[derive(Debug, Default)]
struct Gate {
    writable: bool,
    in_flight: BTreeSet<Owner>,
}

/// Shared state of one incarnation of a node.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) faults: Arc<Faults>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) files: SpecialFiles,
    pub(crate) listeners: Listeners,
    role: Mutex<Role>,
    gate: Mutex<Gate>,
    last_contact: Mutex<Option<Instant>>,
    dead: AtomicBool,
    unmounted: AtomicBool,
    refusal: AtomicI32,
    shutdown_hook: ShutdownHook,
}

/// Closes the sockets and removes the files of a dead node.
#[derive(Default)]
struct ShutdownHook(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for ShutdownHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShutdownHook")
    }
}

/// Where the mount's directory is moved to while the mount is lost.
fn lost(dir: &Path) -> PathBuf {
    dir.with_added_extension("lost")
}

/// Restores the directory of a lost mount.
pub(crate) fn remount(dir: &Path) -> std::io::Result<()> {
    if lost(dir).exists() { std::fs::rename(lost(dir), dir) } else { Ok(()) }
}

impl Context {
    pub(crate) fn new(identity: Identity, faults: Arc<Faults>, signal: Arc<Signal>) -> Self {
        let files = SpecialFiles::new(&identity.dir, &identity.data_dir);
        Self {
            identity,
            faults,
            signal,
            files,
            listeners: Listeners::default(),
            role: Mutex::new(Role::None),
            gate: Mutex::default(),
            last_contact: Mutex::default(),
            dead: AtomicBool::new(false),
            unmounted: AtomicBool::new(false),
            refusal: AtomicI32::new(0),
            shutdown_hook: ShutdownHook::default(),
        }
    }

    /// A file in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.identity.dir.join(name)
    }

    /// A file in the data directory.
    pub(crate) fn data_path(&self, name: &str) -> PathBuf {
        self.identity.data_dir.join(name)
    }

    /// The mount.
    pub(crate) fn dir(&self) -> &Path {
        &self.identity.dir
    }

    pub(crate) fn role(&self) -> Role {
        locked(&self.role).clone()
    }

    /// Takes a role and publishes it: `.primary` first, then the event, as LiteFS does.
    pub(crate) fn set_role(&self, new: Role) {
        let mut role = locked(&self.role);
        if self.is_dead() || *role == new {
            return;
        }
        if self.is_served()
            && let Err(error) = self.files.set_primary(new.primary_name())
        {
            tracing::error!(%error, node = self.identity.name, "cannot write .primary");
        }
        *role = new;
        self.emit(&Event::PrimaryChange { data: role.data() });
        drop(role);
        self.write_lag();
        self.signal.bump();
    }

    /// A new listener. No role change is missed between its `init` and the events that follow.
    pub(crate) fn listen(&self) -> mpsc::Receiver<Delivery> {
        let role = locked(&self.role);
        self.listeners.add(&Event::Init { data: role.data() })
    }

    /// Sends an event, unless the event stream is set to be silent.
    pub(crate) fn emit(&self, event: &Event) {
        if self
            .faults
            .with(|settings| settings.events == EventStreamFault::None && !settings.frozen)
        {
            self.listeners.send(event);
        }
    }

    /// Whether SQLite may write on this node now.
    pub(crate) fn is_writable(&self) -> bool {
        locked(&self.gate).writable
    }

    /// Lets SQLite write.
    pub(crate) fn open_gate(&self) {
        locked(&self.gate).writable = true;
    }

    /// Stops SQLite from writing. If `orderly`, commits that SQLite has already written to the WAL
    /// are captured first; otherwise they are interrupted, as by LiteFS's handoff.
    pub(crate) fn close_gate(&self, orderly: bool) {
        let deadline = Instant::now() + IN_FLIGHT_LIMIT;
        let closed = |force: bool| {
            let mut gate = locked(&self.gate);
            let close = force || gate.in_flight.is_empty();
            gate.writable &= !close;
            close
        };
        if !orderly || !self.signal.wait_until(deadline, || closed(false)) {
            closed(true);
        }
    }

    /// `owner` is about to write to the WAL; `commit` says that the write makes SQLite's
    /// transaction durable. Returns whether it may.
    pub(crate) fn enter_write(&self, owner: Owner, commit: bool) -> bool {
        let mut gate = locked(&self.gate);
        if gate.writable && commit {
            gate.in_flight.insert(owner);
        }
        gate.writable
    }

    /// `owner` has released the write lock.
    pub(crate) fn leave_write(&self, owner: Owner) {
        if locked(&self.gate).in_flight.remove(&owner) {
            self.signal.bump();
        }
    }

    /// A message from the primary has arrived.
    pub(crate) fn note_contact(&self) {
        *locked(&self.last_contact) = Some(Instant::now());
        self.write_lag();
    }

    /// Milliseconds since the last message of the primary: zero on the primary, `None` if never.
    pub(crate) fn lag(&self) -> Option<Duration> {
        match *locked(&self.role) {
            Role::Primary => Some(Duration::ZERO),
            Role::None | Role::Replica(_) => locked(&self.last_contact).map(|at| at.elapsed()),
        }
    }

    /// Updates `.lag`.
    pub(crate) fn write_lag(&self) {
        let lag = self.lag();
        if self.is_served()
            && let Err(error) = self.files.set_lag(lag)
        {
            tracing::error!(%error, node = self.identity.name, "cannot write .lag");
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Whether the files of the mount can be read.
    pub(crate) fn is_served(&self) -> bool {
        !self.is_dead() && !self.unmounted.load(Ordering::Acquire)
    }

    /// The mount dies while the process keeps running.
    pub(crate) fn unmount<'a>(&self, databases: impl Iterator<Item = &'a str>) {
        let _role = locked(&self.role);
        self.unmounted.store(true, Ordering::Release);
        locked(&self.gate).writable = false;
        self.files.remove_all(databases);
        if let Err(error) = std::fs::rename(self.dir(), lost(self.dir())) {
            tracing::error!(%error, node = self.identity.name, "cannot take the mount away");
        }
    }

    /// Sets the hook that runs once when the node dies.
    pub(crate) fn on_death(&self, clear_away: impl FnOnce() + Send + 'static) {
        *locked(&self.shutdown_hook.0) = Some(Box::new(clear_away));
    }

    /// Ends the node: at a kill, at an orderly stop, and where LiteFS would exit. From now on all
    /// I/O through the VFS fails. Does not wait for threads and may be called from any of them.
    pub(crate) fn die(&self) {
        let role = locked(&self.role);
        let first = !self.dead.swap(true, Ordering::AcqRel);
        drop(role);
        locked(&self.gate).writable = false;
        let clear_away = locked(&self.shutdown_hook.0).take();
        if let (true, Some(clear_away)) = (first, clear_away) {
            clear_away();
        }
        self.signal.bump();
    }

    /// Stores the SQLite code with which the node last refused an operation, and returns it.
    pub(crate) fn refuse(&self, code: i32) -> i32 {
        self.refusal.store(code, Ordering::Release);
        code
    }

    /// The code of the last refusal since the last call; 0 if there was none.
    pub(crate) fn take_refusal(&self) -> i32 {
        self.refusal.swap(0, Ordering::AcqRel)
    }
}
