//! The client on each node: one connection to the primary, shared by all threads.

mod blocking;
mod calls;
mod connection;
mod error;
mod exclusive;
mod forward;
mod locator;
mod pool;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rand::Rng;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use connection::Connection;
pub use error::{CallError, Fate};
pub use exclusive::ExclusiveConnection;
pub use forward::{ForwardError, Forwarded, Forwarder};
pub use locator::{PrimaryLocation, PrimaryLocator};

use self::connection::Greeted;
use crate::handshake::{self, HandshakeError};
use crate::limits::Limits;
use crate::secret::Secret;

/// The configuration of a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The name of the database, as LiteFS names it.
    pub database: String,
    /// The secret shared with the server.
    pub secret: Option<Secret>,
    /// How long a connection may take, handshake included. Default 1 s.
    pub connect_timeout: Duration,
    /// The pause after a first failed connection; it doubles up to `reconnect_max`. Default 20 ms.
    pub reconnect_min: Duration,
    /// The longest pause between attempts. Default 500 ms.
    pub reconnect_max: Duration,
    /// The most [exclusive connections](ExclusiveConnection) beside the shared one. 0: none.
    /// Default 2.
    pub exclusive_connections: usize,
    /// The limits on requests, checked before they are sent.
    pub limits: Limits,
}

impl ClientConfig {
    /// A configuration with default values for the database of this name.
    pub fn new(database: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            secret: None,
            connect_timeout: Duration::from_secs(1),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(500),
            exclusive_connections: 2,
            limits: Limits::default(),
        }
    }
}

/// Connects to primaries and keeps the connection to the one in use.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    current: RwLock<Option<Arc<Connection>>>,
    /// Held while connecting, so that callers of the same connection share one attempt.
    connecting: tokio::sync::Mutex<()>,
    /// Notified at each new connection.
    connected: Notify,
    failures: Mutex<HashMap<String, Failure>>,
    round_trips: Arc<AtomicU64>,
}

/// The last failure to connect to an address, kept until the next attempt is due.
#[derive(Debug)]
struct Failure {
    error: CallError,
    until: Instant,
    pause: Duration,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            current: RwLock::default(),
            connecting: tokio::sync::Mutex::default(),
            connected: Notify::new(),
            failures: Mutex::default(),
            round_trips: Arc::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// How many requests have been sent since the start. Reads on a replica leave it as it is.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// The open connection to `address`, if there is one. Does not block and needs no runtime.
    #[must_use]
    pub fn live(&self, address: &str) -> Option<Arc<Connection>> {
        let current =
            self.current.read().expect("no code panics while it holds the current connection");
        current
            .as_ref()
            .filter(|connection| connection.address() == address && connection.is_open())
            .map(Arc::clone)
    }

    /// The connection to `address`, opened if necessary. Must be called on a tokio runtime, which
    /// then drives the connection.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] or [`CallError::Handshake`]. A failure is returned again for a
    /// time that grows up to `reconnect_max`, without a new attempt.
    pub async fn connect(&self, address: &str) -> Result<Arc<Connection>, CallError> {
        if let Some(connection) = self.live(address) {
            return Ok(connection);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.live(address) {
            return Ok(connection);
        }
        if let Some(error) = self.recent_failure(address) {
            return Err(error);
        }
        let attempt = tokio::time::timeout(self.config.connect_timeout, self.dial(address)).await;
        let result = attempt.unwrap_or_else(|_| {
            let reason = format!("no connection within {:?}", self.config.connect_timeout);
            Err(CallError::Unreachable { address: address.into(), reason })
        });
        match result {
            Ok(connection) => {
                self.failures().remove(address);
                *self
                    .current
                    .write()
                    .expect("no code panics while it holds the current connection") =
                    Some(Arc::clone(&connection));
                self.connected.notify_waiters();
                Ok(connection)
            }
            Err(error) => {
                self.remember_failure(address, &error);
                Err(error)
            }
        }
    }

    /// Returns once a connection to `address` is open. Opens none. Cancel safe.
    pub async fn connected(&self, address: &str) {
        loop {
            // Registered before the check, so that no connection made in between is missed.
            let connected = self.connected.notified();
            if self.live(address).is_some() {
                return;
            }
            connected.await;
        }
    }

    /// When the next attempt to connect to `address` is due.
    #[must_use]
    pub fn retry_at(&self, address: &str) -> Option<Instant> {
        self.failures().get(address).map(|failure| failure.until)
    }

    /// The connection used last, to whatever address.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Connection>> {
        self.current.read().expect("no code panics while it holds the current connection").clone()
    }

    /// Closes the connection, if one is open. The outcome of requests in progress is unknown.
    pub fn disconnect(&self) {
        let connection = self
            .current
            .write()
            .expect("no code panics while it holds the current connection")
            .take();
        if let Some(connection) = connection {
            connection.close();
        }
    }

    /// Whether another [exclusive connection](ExclusiveConnection) beside this one would be of use.
    /// A caller that gets `true` calls [`open_exclusive`](Self::open_exclusive).
    #[must_use]
    pub fn wants_exclusive(&self, connection: &Connection) -> bool {
        connection.pool().wants_one(self.config.exclusive_connections)
    }

    /// Opens an exclusive connection beside this one, on the runtime that drives it. After a
    /// failure no further one is opened.
    pub async fn open_exclusive(&self, connection: Arc<Connection>) {
        let dialed =
            tokio::time::timeout(self.config.connect_timeout, self.greet(connection.address()))
                .await;
        let opened = dialed
            .ok()
            .and_then(Result::ok)
            .map(|stream| connection.add_exclusive(stream, &self.config.limits));
        if !matches!(opened, Some(Ok(()))) {
            tracing::debug!(
                address = connection.address(),
                "no exclusive connection to the primary"
            );
            connection.pool().give_up();
        }
    }

    async fn dial(&self, address: &str) -> Result<Arc<Connection>, CallError> {
        let stream = self.greet(address).await?;
        let counter = Arc::clone(&self.round_trips);
        Ok(Arc::new(Connection::open(address.into(), stream, &self.config.limits, counter)))
    }

    async fn greet(&self, address: &str) -> Result<Greeted, CallError> {
        let unreachable = |error: std::io::Error| CallError::Unreachable {
            address: address.into(),
            reason: error.to_string(),
        };
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        // Requests are small and awaited one by one: Nagle's algorithm would delay them.
        stream.set_nodelay(true).map_err(unreachable)?;
        let greeted =
            handshake::greet(stream, &self.config.database, self.config.secret.as_ref()).await;
        let (stream, version) = greeted.map_err(|error| self.refused(address, error))?;
        tracing::debug!(address, %version, "connected to the primary");
        Ok((stream, version))
    }

    fn refused(&self, address: &str, error: HandshakeError) -> CallError {
        match error {
            HandshakeError::Broken(reason) => {
                CallError::Unreachable { address: address.into(), reason }
            }
            error => CallError::Handshake { address: address.into(), error },
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failure>> {
        self.failures.lock().expect("no code panics while it holds the failures")
    }

    fn recent_failure(&self, address: &str) -> Option<CallError> {
        let failures = self.failures();
        failures
            .get(address)
            .filter(|failure| Instant::now() < failure.until)
            .map(|failure| failure.error.clone())
    }

    fn remember_failure(&self, address: &str, error: &CallError) {
        let mut failures = self.failures();
        // Drops the failures of nodes that have left the cluster.
        failures.retain(|_, failure| failure.until + Duration::from_secs(60) > Instant::now());
        let last = failures.get(address).map(|failure| failure.pause);
        let pause = last
            .map_or(self.config.reconnect_min, |pause| (pause * 2).min(self.config.reconnect_max));
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        let failure = Failure { error: error.clone(), until: Instant::now() + jittered, pause };
        failures.insert(address.into(), failure);
    }
}
