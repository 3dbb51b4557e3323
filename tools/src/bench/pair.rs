//! A replica and its primary, which is another process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use litefs_core::RoleKind;
use litefs_diesel::{LiteFs, LiteFsBuilder};
use litefs_examples::Problem;
use litefs_examples::process::Child;
use litefs_rpc::Secret;
use litefs_rpc::client::ClientConfig;
use litefs_testkit::{Cluster, Control, Node};
use rand::Rng;
use tempfile::TempDir;

use super::node::{AS_ON_FUSE, DATABASE};
use super::server::{Bare, Mounted, Ready, Setup};

/// How long a replica may take to receive the table and the primary's address.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// The interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

diesel::table! {
    /// The table in which the primary publishes its address.
    #[sql_name = "_litefs_primary"]
    addresses (id) {
        id -> Integer,
    }
}

/// An embedded cluster: the replica in this process, the primary in another.
pub(super) struct Pair {
    replica: Node,
    control: Control,
    ready: Ready,
    secret: String,
    // Declared before the directory, so that it ends first.
    primary: Child,
    _root: TempDir,
}

impl Pair {
    /// A primary with the library's server.
    pub(super) fn litefs(setup: &Setup) -> Result<Self, Problem> {
        Self::start("litefs-server", setup, None)
    }

    /// A primary whose server is reached through another address.
    pub(super) fn litefs_behind(address: SocketAddr, setup: &Setup) -> Result<Self, Problem> {
        Self::start("litefs-server", setup, Some(address))
    }

    /// A primary with the bare servers.
    pub(super) fn bare(setup: &Setup) -> Result<Self, Problem> {
        Self::start("bare-server", setup, None)
    }

    fn start(server: &str, setup: &Setup, advertise: Option<SocketAddr>) -> Result<Self, Problem> {
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        let arguments: Vec<_> = std::iter::once(server).chain(setup.arguments()).collect();
        let advertised = advertise.map(|address| address.to_string());
        let mut environment = vec![("LITEFS_RPC_SECRET", secret.as_str())];
        environment.extend(advertised.as_deref().map(|address| ("LITEFS_RPC_ADVERTISE", address)));
        let mut primary = Child::start(server, &arguments, &environment)?;
        let root = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let replica = Node::builder("replica").dir(root.path().join("replica")).start()?;
        let cluster = Cluster::attach([primary.receive::<Mounted>()?.litefs, replica.http_url()])?;
        cluster.promote("primary")?;
        let ready = primary.receive()?;
        cluster.wait_for_sync(SYNC_LIMIT)?;
        if matches!(ready, Ready::LiteFs(_)) {
            await_address(&replica)?;
        }
        // Replication is LiteFS's work and is not part of a write. With both nodes on two
        // processors it would be measured as well, at random in either pair.
        replica.stall_replication()?;
        let control = cluster.control("primary")?.clone();
        Ok(Self { replica, control, ready, secret, primary, _root: root })
    }

    /// The faults of the primary.
    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// The primary's process.
    pub(super) fn process(&self) -> u32 {
        self.primary.id()
    }

    /// The address of the library's server.
    pub(super) fn rpc(&self) -> Result<SocketAddr, Problem> {
        match self.ready {
            Ready::LiteFs(address) => Ok(address),
            Ready::Bare(_) => Err("the process is a bare server".into()),
        }
    }

    /// The addresses of the bare servers.
    pub(super) fn bare_servers(&self) -> Result<Bare, Problem> {
        match self.ready {
            Ready::Bare(bare) => Ok(bare),
            Ready::LiteFs(_) => Err("the process is not a bare server".into()),
        }
    }

    /// A handle on the replica.
    pub(super) fn open(&self) -> Result<LiteFs, Problem> {
        let node = &self.replica;
        let litefs = LiteFs::builder(&node.database_url(DATABASE))
            .secret(self.secret.clone())
            .tracker(|tracker| {
                tracker.http_url(&node.http_url()).require_litefs(true).detectors(AS_ON_FUSE)
            });
        start_on_replica(litefs)
    }

    /// The options of clients without a handle.
    pub(super) fn client_config(&self) -> Result<ClientConfig, Problem> {
        let mut config = ClientConfig::new(DATABASE);
        config.secret = Some(Secret::new(self.secret.clone())?);
        Ok(config)
    }

    /// The replica's database.
    pub(super) fn replica_url(&self) -> String {
        self.replica.database_url(DATABASE)
    }
}

/// Waits for the primary's address: once replication is stalled, the replica cannot learn it.
fn await_address(replica: &Node) -> Result<(), Problem> {
    let mut connection = SqliteConnection::establish(&replica.database_url(DATABASE))?;
    let deadline = Instant::now() + SYNC_LIMIT;
    loop {
        match addresses::table.count().get_result(&mut connection) {
            Ok(1_i64) => return Ok(()),
            found if Instant::now() > deadline => {
                return Err(format!("the primary has published no address: {found:?}").into());
            }
            _ => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Starts a handle that does not serve, on a node that must be a replica.
pub(super) fn start_on_replica(litefs: LiteFsBuilder) -> Result<LiteFs, Problem> {
    let litefs = litefs.serve(false).start()?;
    match litefs.role().kind() {
        RoleKind::Replica => Ok(litefs),
        other => Err(format!("not a replica but {other}").into()),
    }
}
