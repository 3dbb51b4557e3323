//! Helpers that the integration tests share: a testkit cluster with a handle on each node.

mod relay;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use libsqlite3_sys as _;
use litefs_core::Role;
use litefs_diesel::{LiteFs, LiteFsBuilder, LiteFsConnection};
use litefs_testkit::{Cluster, Relay};

pub use self::relay::relay;

/// The database that all tests use.
pub const DATABASE: &str = "app.db";

/// The limit for operations that should take milliseconds.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster and the application's handle on each of its nodes. The first node is the primary.
pub struct TestCluster {
    // Declared before the cluster, so that the handles end before its files are removed.
    handles: HashMap<String, LiteFs>,
    /// The addresses of nodes that are reached through a relay.
    advertised: HashMap<String, String>,
    /// The nodes. Tests inject faults through it.
    pub cluster: Cluster,
}

impl TestCluster {
    /// Nodes with default options.
    #[must_use]
    pub fn start(names: &[&str]) -> Self {
        Self::configured(names, |_, builder| builder)
    }

    /// Nodes with options set by `configure`, which gets the node's name.
    ///
    /// # Panics
    /// If the nodes do not start or do not find their roles.
    pub fn configured(
        names: &[&str],
        configure: impl Fn(&str, LiteFsBuilder) -> LiteFsBuilder,
    ) -> Self {
        Self::behind(names, &[], configure)
    }

    /// Nodes of which some are reached only through a relay.
    ///
    /// # Panics
    /// As [`configured`](Self::configured).
    pub fn behind(
        names: &[&str],
        relays: &[(&str, &Relay)],
        configure: impl Fn(&str, LiteFsBuilder) -> LiteFsBuilder,
    ) -> Self {
        let cluster = Cluster::builder()
            .nodes(names.to_vec())
            .database(DATABASE)
            .start()
            .expect("the cluster starts");
        let advertised = relays
            .iter()
            .map(|(name, relay)| ((*name).to_owned(), relay.address().to_string()))
            .collect();
        let mut test = Self { handles: HashMap::new(), advertised, cluster };
        for name in names {
            let handle = configure(name, test.builder(name)).start().expect("the handle starts");
            test.handles.insert((*name).to_owned(), handle);
        }
        for (name, relay) in relays {
            relay.set_target(test.litefs(name).rpc_address().expect("it serves"));
        }
        test.wait_for_roles();
        test
    }

    /// A builder with the options of a node.
    pub fn builder(&self, name: &str) -> LiteFsBuilder {
        let node = self.cluster.node(name);
        let http_url = node.http_url();
        let builder = LiteFs::builder(&node.database_url(DATABASE))
            .listen("127.0.0.1:0".parse().expect("an address"))
            .tracker(|tracker| tracker.http_url(&http_url).node(name));
        match self.advertised.get(name) {
            Some(address) => builder.advertise(address),
            None => builder,
        }
    }

    /// Waits until every node knows its role and every replica knows the primary's address.
    ///
    /// # Panics
    /// If they do not within [`TIMEOUT`].
    pub fn wait_for_roles(&self) {
        let primary = self.cluster.primary().map(|node| node.name().to_owned()).expect("a primary");
        for (name, handle) in &self.handles {
            wait_until(&format!("the role of {name}"), || match handle.role() {
                Role::Primary => *name == primary,
                Role::Replica { primary: named } => {
                    let own = || self.handles.get(&primary)?.rpc_address().map(|a| a.to_string());
                    let address = self.advertised.get(&primary).cloned().or_else(own);
                    named.as_ref() == primary
                        && address == Some(handle.tracker().rpc_address(&named))
                }
                _ => false,
            });
        }
    }

    /// A node's handle.
    pub fn litefs(&self, name: &str) -> &LiteFs {
        &self.handles[name]
    }

    /// Removes a node's handle, as when its process ends.
    pub fn stop(&mut self, name: &str) {
        self.handles.remove(name);
    }

    /// A connection from the node's handle.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn conn(&self, name: &str) -> LiteFsConnection {
        self.litefs(name).establish().expect("a connection")
    }

    /// A plain SQLite connection to the node's file, which bypasses the library.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn plain(&self, name: &str) -> SqliteConnection {
        let url = self.cluster.node(name).database_url(DATABASE);
        let mut conn = SqliteConnection::establish(&url).expect("a connection");
        conn.batch_execute("PRAGMA busy_timeout = 5000").expect("a timeout");
        conn
    }

    /// Runs a script on the primary and waits until every node has it.
    ///
    /// # Panics
    /// If either fails.
    pub fn schema(&self, sql: &str) {
        let primary = self.cluster.primary().expect("a primary").name().to_owned();
        self.conn(&primary).batch_execute(sql).expect("the schema");
        self.sync();
    }

    /// Waits until every replica is at the primary's position.
    ///
    /// # Panics
    /// If they are not within [`TIMEOUT`].
    pub fn sync(&self) {
        self.cluster.wait_for_sync(TIMEOUT).expect("the replicas catch up");
    }
}

/// Waits until a condition is true.
///
/// # Panics
/// If it is not true within [`TIMEOUT`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
