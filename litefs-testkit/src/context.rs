//! What the databases, servers and threads of one running node share.

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
    /// The mount.
    pub(crate) dir: PathBuf,
    /// What LiteFS would keep in its data directory.
    pub(crate) data_dir: PathBuf,
    /// Databases that it creates when it becomes primary.
    pub(crate) databases: Vec<String>,
}

/// A node's role, as LiteFS publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// No primary is known.
    None,
    /// It holds the lease.
    Primary,
    /// It is connected, or trying to connect, to the node of this name.
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

/// Whether SQLite may write, and which connections are in the middle of a commit.
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

/// Where a mount's directory is while the mount is lost.
fn lost(dir: &Path) -> PathBuf {
    dir.with_added_extension("lost")
}

/// Brings a lost mount's directory back.
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

    /// A new listener; no role change can fall between its `init` and what follows.
    pub(crate) fn listen(&self) -> mpsc::Receiver<Delivery> {
        let role = locked(&self.role);
        self.listeners.add(&Event::Init { data: role.data() })
    }

    /// Sends an event, unless the stream is made to fall silent.
    pub(crate) fn emit(&self, event: &Event) {
        if self
            .faults
            .with(|settings| settings.events == EventStreamFault::None && !settings.frozen)
        {
            self.listeners.send(event);
        }
    }

    /// Whether SQLite may write here now.
    pub(crate) fn is_writable(&self) -> bool {
        locked(&self.gate).writable
    }

    /// Lets SQLite write.
    pub(crate) fn open_gate(&self) {
        locked(&self.gate).writable = true;
    }

    /// Stops SQLite from writing. With `orderly`, commits that SQLite has already written to the
    /// WAL are captured first; without, they are caught in the middle, as by LiteFS's handoff.
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

    /// `owner` is about to write to the WAL; with `commit`, what makes SQLite's transaction
    /// durable. Says whether it may.
    pub(crate) fn enter_write(&self, owner: Owner, commit: bool) -> bool {
        let mut gate = locked(&self.gate);
        if gate.writable && commit {
            gate.in_flight.insert(owner);
        }
        gate.writable
    }

    /// `owner` has given the write lock back.
    pub(crate) fn leave_write(&self, owner: Owner) {
        if locked(&self.gate).in_flight.remove(&owner) {
            self.signal.bump();
        }
    }

    /// A message of the primary has arrived.
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

    /// Brings `.lag` up to date.
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

    /// Whether files of the mount answer.
    pub(crate) fn is_served(&self) -> bool {
        !self.is_dead() && !self.unmounted.load(Ordering::Acquire)
    }

    /// The mount dies alone.
    pub(crate) fn unmount<'a>(&self, databases: impl Iterator<Item = &'a str>) {
        let _role = locked(&self.role);
        self.unmounted.store(true, Ordering::Release);
        locked(&self.gate).writable = false;
        self.files.remove_all(databases);
        if let Err(error) = std::fs::rename(self.dir(), lost(self.dir())) {
            tracing::error!(%error, node = self.identity.name, "cannot take the mount away");
        }
    }

    /// Sets what runs once when the node dies.
    pub(crate) fn on_death(&self, clear_away: impl FnOnce() + Send + 'static) {
        *locked(&self.shutdown_hook.0) = Some(Box::new(clear_away));
    }

    /// The node dies: at a kill, at an orderly stop, and where LiteFS would exit. From now on all
    /// I/O through the VFS fails. Does not wait for threads; may be called from any of them.
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

    /// Remembers the SQLite code with which the node last refused something, and returns it.
    pub(crate) fn refuse(&self, code: i32) -> i32 {
        self.refusal.store(code, Ordering::Release);
        code
    }

    /// The code of the last refusal since the last call; 0 for none.
    pub(crate) fn take_refusal(&self) -> i32 {
        self.refusal.swap(0, Ordering::AcqRel)
    }
}
