//! The other processes: primaries with the library's server or with the bare servers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use diesel::connection::{Connection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{LiteFs, LiteFsBuilder};
use litefs_examples::{Problem, process};
use litefs_rpc::Limits;
use litefs_testkit::Node;
use serde::{Deserialize, Serialize};

use super::node::{AS_ON_FUSE, DATABASE};
use super::{bare, items, raw};

/// `PRAGMA synchronous` of the connections that write,
/// <https://www.sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Synchronous {
    /// In WAL mode a commit reaches the disk with the next checkpoint.
    Normal,
    /// Every commit reaches the disk.
    Full,
}

impl Synchronous {
    /// Applies it to a connection.
    pub(super) fn set(self, connection: &mut SqliteConnection) -> QueryResult<()> {
        connection.batch_execute(match self {
            Self::Normal => "PRAGMA synchronous = NORMAL",
            Self::Full => "PRAGMA synchronous = FULL",
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Full => "full",
        }
    }
}

/// The options of a primary.
#[derive(Debug, Clone, Args)]
pub(super) struct Setup {
    /// For the servers: the durability of commits.
    #[arg(long, value_enum, default_value_t = Synchronous::Normal, hide_short_help = true)]
    pub(super) synchronous: Synchronous,
    /// For `litefs-server`: one commit for each forwarded write.
    #[arg(long, hide_short_help = true)]
    pub(super) ungrouped: bool,
    /// For the servers: the database on a LiteFS mount. Default: an embedded LiteFS.
    #[arg(long, hide_short_help = true)]
    pub(super) database: Option<String>,
    /// For `bare-server`: its address, with the raw server on the next port. Default: free ports of
    /// the loopback address.
    #[arg(long, hide_short_help = true)]
    pub(super) listen: Option<SocketAddr>,
}

impl Setup {
    /// An embedded primary whose commits are as durable as `synchronous` says.
    pub(super) fn embedded(synchronous: Synchronous) -> Self {
        Self { synchronous, ungrouped: false, database: None, listen: None }
    }

    /// The same with one commit for each forwarded write.
    pub(super) fn ungrouped(self) -> Self {
        Self { ungrouped: true, ..self }
    }

    /// The options as arguments of a process.
    pub(super) fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--synchronous", self.synchronous.name()];
        if self.ungrouped {
            arguments.push("--ungrouped");
        }
        arguments
    }

    fn limits(&self) -> Limits {
        if self.ungrouped { without_group_commit(Limits::default()) } else { Limits::default() }
    }
}

/// One commit for each forwarded write.
fn without_group_commit(mut limits: Limits) -> Limits {
    limits.group = 1;
    limits
}

/// The first message of the process, if LiteFS is embedded in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// Base URL of LiteFS's HTTP server.
    pub(super) litefs: String,
}

/// The message once it is the primary and its server listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ready {
    /// The library's server; replicas find it themselves.
    LiteFs(SocketAddr),
    /// The bare servers.
    Bare(Bare),
}

/// The addresses of the bare servers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Bare {
    pub(super) tarpc: SocketAddr,
    pub(super) raw: SocketAddr,
}

/// Serves forwarded writes until the parent process ends.
pub(super) fn run_litefs(setup: &Setup) -> Result<(), Problem> {
    let primary = Primary::start(setup)?;
    drop(table(&primary.url, setup.synchronous)?);
    let litefs = primary.litefs(setup).start()?;
    let address = litefs.rpc_address().ok_or("the primary does not serve")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let ended = process::parent_ended();
        process::send(&Ready::LiteFs(address))?;
        Ok(ended.await?)
    })
}

/// Serves bare calls until the parent process ends, without the library.
pub(super) fn run_bare(setup: &Setup) -> Result<(), Problem> {
    let primary = Primary::start(setup)?;
    let connection = Arc::new(Mutex::new(table(&primary.url, setup.synchronous)?));
    let tarpc = setup.listen.unwrap_or(([127, 0, 0, 1], 0).into());
    let raw = setup.listen.map_or(tarpc, above);
    tokio::runtime::Runtime::new()?.block_on(async {
        let ended = process::parent_ended();
        let listener = tokio::net::TcpListener::bind(tarpc).await?;
        let raw_listener = std::net::TcpListener::bind(raw)?;
        process::send(&Ready::Bare(Bare {
            tarpc: listener.local_addr()?,
            raw: raw_listener.local_addr()?,
        }))?;
        raw::serve(raw_listener, Arc::clone(&connection));
        tokio::select! {
            served = bare::serve(listener, connection) => served,
            _ = ended => Ok(()),
        }
    })
}

/// The address of the raw server that belongs to the bare server at this address.
pub(super) fn above(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port().saturating_add(1));
    address
}

/// A node that is the primary. The parent makes an embedded node the primary.
struct Primary {
    url: String,
    // Declared first, so that the node ends before its directory is removed.
    node: Option<Node>,
    _root: Option<tempfile::TempDir>,
}

impl Primary {
    fn start(setup: &Setup) -> Result<Self, Problem> {
        if let Some(url) = &setup.database {
            return Ok(Self { url: url.clone(), node: None, _root: None });
        }
        let root = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let node =
            Node::builder("primary").dir(root.path().join("primary")).database(DATABASE).start()?;
        node.set_sync(true)?;
        process::send(&Mounted { litefs: node.http_url() })?;
        node.wait_until(Duration::from_secs(20), |now| {
            now.is_primary && now.positions.contains_key(DATABASE)
        })?;
        Ok(Self { url: node.database_url(DATABASE), node: Some(node), _root: Some(root) })
    }

    fn litefs(&self, setup: &Setup) -> LiteFsBuilder {
        let synchronous = setup.synchronous;
        let litefs = LiteFs::builder(&self.url)
            .from_env()
            .limits(setup.limits())
            .on_connection(move |connection| synchronous.set(connection));
        match &self.node {
            None => litefs,
            Some(node) => litefs.listen(([127, 0, 0, 1], 0).into()).tracker(|tracker| {
                tracker.http_url(&node.http_url()).require_litefs(true).detectors(AS_ON_FUSE)
            }),
        }
    }
}

fn table(url: &str, synchronous: Synchronous) -> Result<SqliteConnection, Problem> {
    let mut connection = SqliteConnection::establish(url)?;
    connection.batch_execute("PRAGMA busy_timeout = 5000")?;
    synchronous.set(&mut connection)?;
    connection.batch_execute(items::DDL)?;
    Ok(connection)
}
