//! The contenders: a replica whose primary has the library's server, and bare servers that do the
//! same work.

use litefs_diesel::LiteFs;
use litefs_examples::Problem;
use tokio::runtime::Runtime;

use super::bare;
use super::options::Mount;
use super::pair::{Pair, start_on_replica};
use super::raw;
use super::server::{Bare, Setup, above};

/// A handle on a replica and the addresses of the bare servers.
pub(super) struct Rig {
    /// The handle.
    pub(super) litefs: LiteFs,
    servers: Bare,
    runtime: Runtime,
    /// Declared after the handle, so that the nodes outlive it. Empty on a real mount.
    pairs: Vec<Pair>,
}

impl Rig {
    /// Starts on the mount, if there is one, or on embedded clusters. A mount's primary is not
    /// configured here.
    pub(super) fn start(mount: Option<&Mount>, setup: &Setup) -> Result<Self, Problem> {
        let runtime = Runtime::new()?;
        if let Some(Mount { replica, primary }) = mount {
            let litefs = start_on_replica(LiteFs::builder(replica).from_env())?;
            let servers = Bare { tarpc: *primary, raw: above(*primary) };
            return Ok(Self { litefs, servers, runtime, pairs: Vec::new() });
        }
        let (with, without) = (Pair::litefs(setup)?, Pair::bare(setup)?);
        let (litefs, servers) = (with.open()?, without.bare_servers()?);
        Ok(Self { litefs, servers, runtime, pairs: vec![with, without] })
    }

    /// A client of the bare tarpc server.
    pub(super) fn tarpc(&self) -> Result<bare::Caller, Problem> {
        bare::Caller::connect(self.runtime.handle().clone(), self.servers.tarpc)
    }

    /// A client of the raw server.
    pub(super) fn raw(&self) -> Result<raw::Caller, Problem> {
        raw::Caller::connect(self.servers.raw)
    }

    /// The primary with the library's server, if it is embedded.
    pub(super) fn primary(&self) -> Option<&Pair> {
        self.pairs.first()
    }
}
