//! A node across its incarnations: the state that survives a kill and a restart.

use std::sync::{Arc, Mutex};

use crate::command::{Answer, Command};
use crate::context::{Identity, remount};
use crate::engine::Engine;
use crate::error::Error;
use crate::execute::execute;
use crate::faults::Faults;
use crate::launch::launch;
use crate::sync::{Signal, locked};
use crate::vfs;

/// The part of a node that survives its incarnations.
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
    pub(crate) fn start(
        identity: Identity,
        http_addr: &str,
        replication_addr: &str,
    ) -> Result<Self, Error> {
        let signal = Arc::new(Signal::default());
        let faults = Arc::new(Faults::new(Arc::clone(&signal)));
        let engine = launch(&identity, http_addr, replication_addr, &faults, &signal)?;
        // A port of 0 has been replaced by a real port, which later incarnations keep.
        let http_addr = engine.peer.http_url.trim_start_matches("http://").to_owned();
        let replication_addr = engine.peer.replication_addr.clone();
        Ok(Self {
            identity,
            http_addr,
            replication_addr,
            faults,
            signal,
            engine: Mutex::new(engine),
        })
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

    /// Starts the next incarnation once the last one is dead.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        let mut engine = locked(&self.engine);
        if !engine.context.is_dead() {
            return Err(Error::Running(self.identity.name.clone()));
        }
        remount(&self.identity.dir).map_err(Error::io("mount"))?;
        *engine = launch(
            &self.identity,
            &self.http_addr,
            &self.replication_addr,
            &self.faults,
            &self.signal,
        )?;
        Ok(())
    }

    /// Kills the node; it is not started again.
    pub(crate) fn retire(&self) {
        self.kill();
        vfs::unmount(&self.identity.dir);
    }
}
