//! The configuration of a server, and why it may fail to start.

use std::net::SocketAddr;

use crate::limits::Limits;
use crate::secret::Secret;

/// The configuration of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The name of the database served, as LiteFS names it. Clients must ask for the same.
    pub database: String,
    /// The secret that clients must prove to know. `None` is accepted on loopback addresses only.
    pub secret: Option<Secret>,
    /// Accept clients without a secret on any address. The port executes SQL: use this only in a
    /// network that is closed by other means. Default `false`.
    pub allow_insecure: bool,
    /// The limits on requests and connections.
    pub limits: Limits,
    /// Whether a commit must advance LiteFS's position. Without this check writes are acknowledged
    /// that LiteFS dropped; only for tests of that. Default `true`.
    #[doc(hidden)]
    pub prove_commits: bool,
}

impl ServerConfig {
    /// A configuration with default values for the database of this name.
    pub fn new(database: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            secret: None,
            allow_insecure: false,
            limits: Limits::default(),
            prove_commits: true,
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is reachable from other machines and nothing protects it.
    #[error(
        "refusing to listen on {0} without authentication: this port executes SQL. Set a shared \
         secret, listen on a loopback address, or say allow_insecure"
    )]
    Insecure(SocketAddr),
    /// The port is in use.
    #[error(
        "the RPC address {0} is already in use: another process of this node serves it. Start \
         this handle with serve(false), or give it another address"
    )]
    AddressInUse(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A thread could not be started.
    #[error("cannot start the server's threads: {0}")]
    Thread(#[source] std::io::Error),
}
