//! A node through its incarnations: what stays the same when it is killed and started again.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::command::{Answer, Command, execute};
use crate::context::{Context, Identity, remount};
use crate::engine::{CORRUPT_MARKER, Engine};
use crate::error::Error;
use crate::faults::Faults;
use crate::sync::{Signal, locked};
use crate::vfs;

/// How long a restarted node waits for its ports: the servers of the last incarnation let go in the background.
const BIND_LIMIT: Duration = Duration::from_secs(5);

/// 16 random upper-case hexadecimal digits.
pub(crate) fn random_id() -> String {
    // The standard library's hash seeds are random numbers.
    format!("{:016X}", RandomState::new().build_hasher().finish())
}

/// A node's lasting part.
pub(crate) struct Host {
    identity: Identity,
    http_addr: String,
    replication_addr: String,
    faults: Arc<Faults>,
    signal: Arc<Signal>,
    engine: Mutex<Arc<Engine>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts the first incarnation on these addresses.
    pub(crate) fn start(identity: Identity, http_addr: &str, replication_addr: &str) -> Result<Self, Error> {
        let signal = Arc::new(Signal::default());
        let faults = Arc::new(Faults::new(Arc::clone(&signal)));
        let engine = launch(&identity, http_addr, replication_addr, &faults, &signal)?;
        // Port 0 is now a real one, which the next incarnations keep.
        let http_addr = engine.peer.http_url.trim_start_matches("http://").to_owned();
        let replication_addr = engine.peer.replication_addr.clone();
        Ok(Self { identity, http_addr, replication_addr, faults, signal, engine: Mutex::new(engine) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.identity.dir
    }

    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.http_addr)
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&locked(&self.engine))
    }

    pub(crate) fn execute(&self, command: Command) -> Result<Answer, Error> {
        execute(&self.faults, &self.engine(), command)
    }

    /// Kills the present incarnation.
    pub(crate) fn kill(&self) {
        self.engine().context.die();
    }

    /// Starts the next incarnation, once the last one is dead.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        let mut engine = locked(&self.engine);
        if !engine.context.is_dead() {
            return Err(Error::Running(self.identity.name.clone()));
        }
        remount(&self.identity.dir).map_err(Error::io("mount"))?;
        *engine =
            launch(&self.identity, &self.http_addr, &self.replication_addr, &self.faults, &self.signal)?;
        Ok(())
    }

    /// Kills the node for good.
    pub(crate) fn retire(&self) {
        self.kill();
        vfs::unmount(&self.identity.dir);
    }
}

fn launch(
    identity: &Identity,
    http_addr: &str,
    replication_addr: &str,
    faults: &Arc<Faults>,
    signal: &Arc<Signal>,
) -> Result<Arc<Engine>, Error> {
    fs::create_dir_all(&identity.data_dir).map_err(Error::io("create the data directory"))?;
    if identity.data_dir.join(CORRUPT_MARKER).exists() {
        return Err(Error::Corrupt(identity.name.clone()));
    }
    let identity = Identity { id: random_id(), ..identity.clone() };
    let (http, replication) = (bind(http_addr)?, bind(replication_addr)?);
    Engine::start(Context::new(identity, Arc::clone(faults), Arc::clone(signal)), http, replication)
}

fn bind(addr: &str) -> Result<TcpListener, Error> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_LIMIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            bound => return bound.map_err(Error::io(format!("listen on {addr}"))),
        }
    }
}
