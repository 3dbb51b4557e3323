//! The options of a handle: their documentation, types, variables and defaults.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_core::{Config, ConfigBuilder};
use litefs_rpc::sqlite::{DEFAULT_RETENTION, Procedure, Procedures};
use litefs_rpc::wire::Delivery;
use litefs_rpc::{Limits, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::define::options;
use super::durability::Durability;
use super::given::{Given, Vars};
use super::local_writes::LocalWrites;
use super::start_error::StartError;
use super::transactions::TransactionMode;
use crate::consistency::{Consistency, WhenBehind};
use crate::loss::{LostWrites, OnLostWrites};
use crate::router::{ForwardWrites, Router};

/// Runs on every SQLite connection that the library opens, before anything else does.
pub(crate) type ConnectionHook =
    Arc<dyn Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync>;

options! {
    tracker: config;

    environment {
        /// The secret that all nodes of the cluster share. It is never sent.
        ///
        /// Default: none, and then the server listens on the loopback address only.
        secret(impl Into<Vec<u8>>): Vec<u8> => Option<Secret>,
        "LITEFS_RPC_SECRET": "at least 16 random bytes",
        |given| given.secret();

        /// The address on which this node takes writes of other nodes while it is the primary.
        ///
        /// Default: port 20203 (`rpc_port`) on all addresses if a secret is set, else on the
        /// loopback address only.
        listen(SocketAddr): SocketAddr => SocketAddr,
        "LITEFS_RPC_LISTEN": "an address such as 0.0.0.0:20203",
        |given| given.parse().map(|address| address.unwrap_or_else(|| {
            let ip = if secret.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
            SocketAddr::new(IpAddr::V4(ip), config.rpc_port())
        }));

        /// The address under which the other nodes reach this one.
        ///
        /// Default: the address listened on if it is a loopback address, else this node's LiteFS
        /// host name with the port listened on.
        advertise(impl Into<String>): String => Option<String>,
        "LITEFS_RPC_ADVERTISE": "host:port, as the other nodes reach this one",
        |given| given.address();

        /// Whether this process takes writes of other nodes. Set it to `false` in all but one of a
        /// node's processes.
        ///
        /// Default `true`.
        serve(bool): bool => bool,
        "LITEFS_SERVE": "1, 0, true or false",
        |given| given.flag(true);

        /// Allows a server without a secret on addresses that other machines reach. Whoever reaches
        /// it can run SQL. For networks that are closed by other means.
        ///
        /// Default `false`.
        allow_insecure(bool): bool => bool,
        "LITEFS_RPC_ALLOW_INSECURE": "1, 0, true or false",
        |given| given.flag(false);

        /// Whether a node that becomes the primary switches the database to WAL. Without WAL,
        /// readers and writers of a node block each other, and LiteFS commits at half the speed.
        ///
        /// Default `true`.
        wal(bool): bool => bool,
        "LITEFS_WAL": "1, 0, true or false",
        |given| given.flag(true);

        /// How long a write waits while no primary is known.
        ///
        /// Default 5 s.
        primary_timeout(Duration): Duration => Duration,
        "LITEFS_PRIMARY_TIMEOUT_MS": "a whole number of milliseconds, at least 1",
        |given| given.timeout(Duration::from_secs(5));

        /// How long a forwarded statement may take in all, retries included.
        ///
        /// Default 10 s.
        forward_timeout(Duration): Duration => Duration,
        "LITEFS_FORWARD_TIMEOUT_MS": "a whole number of milliseconds, at least 1",
        |given| given.timeout(Duration::from_secs(10));

        /// How long a read waits for this node to catch up before
        /// [`when_behind`](Self::when_behind) applies.
        ///
        /// Default 1 s.
        read_timeout(Duration): Duration => Duration,
        "LITEFS_READ_TIMEOUT_MS": "a whole number of milliseconds, at least 1",
        |given| given.timeout(Duration::from_secs(1));

        /// What reads must see.
        ///
        /// Default [`Consistency::ReadYourWrites`].
        consistency(Consistency): Consistency => Consistency,
        "LITEFS_CONSISTENCY": "read-your-writes, session, eventual or strong",
        |given| given.parse().map(Option::unwrap_or_default);

        /// What a read does when the node has not caught up in time.
        ///
        /// Default [`WhenBehind::ReadPrimary`].
        when_behind(WhenBehind): WhenBehind => WhenBehind,
        "LITEFS_WHEN_BEHIND": "read-primary, read-stale or fail",
        |given| given.parse().map(Option::unwrap_or_default);

        /// How often a forwarded write may be applied when its answer is lost.
        ///
        /// Default [`Delivery::ExactlyOnce`].
        delivery(Delivery): Delivery => Delivery,
        "LITEFS_DELIVERY": "exactly-once or at-most-once",
        |given| given.parse().map(Option::unwrap_or_default);

        /// How statements that write run while this node is the primary itself, outside of
        /// transactions.
        ///
        /// Default [`LocalWrites::Direct`].
        local_writes(LocalWrites): LocalWrites => LocalWrites,
        "LITEFS_LOCAL_WRITES": "direct or grouped",
        |given| given.parse().map(Option::unwrap_or_default);

        /// How a plain transaction begins.
        ///
        /// Default [`TransactionMode::Optimistic`].
        transactions(TransactionMode): TransactionMode => TransactionMode,
        "LITEFS_TRANSACTIONS": "optimistic or immediate",
        |given| given.parse().map(Option::unwrap_or_default);

        /// How long a transaction of a replica may keep its writes open on this node's file, which
        /// holds up replication on the node. A transaction that takes longer goes on on the
        /// primary.
        ///
        /// Default 500 ms.
        speculation_limit(Duration): Duration => Duration,
        "LITEFS_SPECULATION_LIMIT_MS": "a whole number of milliseconds, at least 1",
        |given| given.timeout(Duration::from_millis(500));

        /// The most connections to the primary that a single caller uses at a time, one for as long
        /// as its statement or transaction takes, beside the one that all callers share. They are
        /// opened on demand, and make writes faster while there are few callers.
        ///
        /// Default 2.
        exclusive_connections(usize): usize => usize,
        "LITEFS_EXCLUSIVE_CONNECTIONS": "a whole number",
        |given| given.parse().map(|most| most.unwrap_or(2));

        /// Which nodes must have a write before it is acknowledged. A write that they do not have
        /// within `forward_timeout` fails with
        /// [`Failure::NotReplicated`](crate::Failure::NotReplicated); it is applied all the same.
        ///
        /// Default [`Durability::Primary`].
        durability(Durability): Durability => Durability,
        "LITEFS_DURABILITY": "primary, here, or a number of replicas",
        |given| given.parse().map(Option::unwrap_or_default);

        /// How long a read pauses at most while this node is behind the primary, so that LiteFS
        /// can take its locks and apply. Zero: never.
        ///
        /// Default 20 ms, some ten times what LiteFS needs to apply a transaction.
        read_pause(Duration): Duration => Duration,
        "LITEFS_READ_PAUSE_MS": "a whole number of milliseconds",
        |given| given.time(Duration::from_millis(20));

        /// How long this node, as the primary, keeps the outcomes of writes. At least twice
        /// `forward_timeout`: once an outcome is pruned, a retry of its write would be applied
        /// again.
        ///
        /// Default 5 min.
        outcome_retention(Duration): Duration => Duration,
        "LITEFS_OUTCOME_RETENTION_MS": "a whole number of milliseconds",
        |given| given.retention(DEFAULT_RETENTION, forward_timeout);
    }

    program {
        /// The limits on requests and queues. What exceeds them is refused.
        limits(limits: Limits => limits): Limits = Limits::default();

        /// Decides where statements run. Default [`ForwardWrites`].
        router(router: impl Router => Arc::new(router)): Arc<dyn Router> = Arc::new(ForwardWrites);

        /// Runs on every SQLite connection that the library opens: the application's on this node,
        /// the one that runs the writes of other nodes while this node is the primary, and those
        /// that run their reads. The place to register SQL functions and collations, so that they
        /// exist wherever a statement runs. It should not write: a connection may be opened while a
        /// transaction of another connection is open.
        on_connection(
            hook: impl Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync + 'static
                => Some(Arc::new(hook))
        ): Option<ConnectionHook> = None;

        /// Runs when a failover has lost writes that were acknowledged to this process. The loss is
        /// also logged, as an error, and counted (`litefs_lost_writes_total`). Runs on a thread for
        /// blocking work.
        on_lost_writes(
            report: impl Fn(&LostWrites) + Send + Sync + 'static => Some(Arc::new(report))
        ): Option<OnLostWrites> = None;

        /// Whether a commit needs LiteFS's position as evidence. Without it, writes are
        /// acknowledged that LiteFS dropped: for tests that must see that happen. Default `true`.
        #[cfg(feature = "test-hooks")]
        prove_commits(prove: bool => prove): bool = true;

        /// All procedures at once, for [`procedure`](Self::procedure).
        #[doc(hidden)]
        procedures(procedures: Arc<Procedures> => procedures): Arc<Procedures> = Arc::default();
    }
}

impl LiteFsBuilder {
    /// Takes options that are not set here from the process's environment.
    pub fn from_env(self) -> Self {
        self.from_vars(std::env::vars_os())
    }

    /// Like [`from_env`](Self::from_env), with the variables given. Variables that are empty, or
    /// whose names do not start with `LITEFS_`, are ignored.
    pub fn from_vars<K, V>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        self.vars = Vars::collect(vars);
        self
    }

    /// Adds a procedure that other nodes may call while this node is the primary. To be done on
    /// every node, before the first call; [`LiteFs::procedure`](crate::LiteFs::procedure) does the
    /// same later.
    pub fn procedure<A, R>(self, procedure: &'static Procedure<A, R>) -> Self
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.procedures.register(procedure);
        self
    }

    /// Sets options of the tracker: the URL of LiteFS's HTTP API, this node's name, which detectors
    /// run, how often.
    ///
    /// ```no_run
    /// # use litefs_diesel::LiteFs;
    /// let litefs = LiteFs::builder("/litefs/app.db").tracker(|t| t.require_litefs(true)).start()?;
    /// # Ok::<(), litefs_diesel::StartError>(())
    /// ```
    pub fn tracker(mut self, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        self.tracker = set(self.tracker);
        self
    }
}

impl fmt::Debug for LiteFsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the variables, which may hold it.
        f.debug_struct("LiteFsBuilder").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}
