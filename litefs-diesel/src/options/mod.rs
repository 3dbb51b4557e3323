//! The options of a handle and its builder.

mod build;
pub(crate) mod durability;
pub(crate) mod local_writes;
mod start_error;
#[cfg(test)]
mod tests;
mod vars;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_core::{Config, ConfigBuilder};
use litefs_rpc::Limits;
use litefs_rpc::wire::Delivery;

pub(crate) use self::build::Options;
pub use self::durability::Durability;
pub use self::local_writes::LocalWrites;
pub use self::start_error::StartError;
use crate::consistency::{Consistency, WhenBehind};
use crate::loss::ack_log::{LostWrites, OnLostWrites};
use crate::router::{ForwardWrites, Router};

/// Runs on every SQLite connection that the library opens, before anything else does.
pub(crate) type ConnectionHook =
    Arc<dyn Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync>;

/// Sets up a [`LiteFs`](crate::LiteFs) handle. Made by [`LiteFs::builder`](crate::LiteFs::builder).
///
/// Every option has a default that suits production; most can also be set by an environment
/// variable, which is read after [`from_env`](Self::from_env). What is set on the builder wins.
#[must_use]
pub struct LiteFsBuilder {
    tracker: ConfigBuilder,
    vars: Vec<(String, OsString)>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    serve: Option<bool>,
    secret: Option<Vec<u8>>,
    allow_insecure: Option<bool>,
    wal: Option<bool>,
    primary_timeout: Option<Duration>,
    forward_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    consistency: Option<Consistency>,
    when_behind: Option<WhenBehind>,
    delivery: Option<Delivery>,
    local_writes: Option<LocalWrites>,
    lanes: Option<usize>,
    outcome_retention: Option<Duration>,
    durability: Option<Durability>,
    read_pause: Option<Duration>,
    limits: Limits,
    router: Arc<dyn Router>,
    hook: Option<ConnectionHook>,
    on_lost_writes: Option<OnLostWrites>,
    prove_commits: bool,
}

impl LiteFsBuilder {
    pub(crate) fn new(database: &str) -> Self {
        Self {
            tracker: Config::builder(database),
            vars: Vec::new(),
            listen: None,
            advertise: None,
            serve: None,
            secret: None,
            allow_insecure: None,
            wal: None,
            primary_timeout: None,
            forward_timeout: None,
            read_timeout: None,
            consistency: None,
            when_behind: None,
            delivery: None,
            local_writes: None,
            lanes: None,
            outcome_retention: None,
            durability: None,
            read_pause: None,
            limits: Limits::default(),
            router: Arc::new(ForwardWrites),
            hook: None,
            on_lost_writes: None,
            prove_commits: true,
        }
    }

    /// Takes options that are not set here from the process's environment.
    pub fn from_env(self) -> Self {
        self.from_vars(std::env::vars_os())
    }

    /// Like [`from_env`](Self::from_env), with the variables given. Variables that are empty or not
    /// ours are ignored.
    pub fn from_vars<K, V>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let ours =
            |name: OsString| name.into_string().ok().filter(|name| name.starts_with("LITEFS_"));
        let all = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        let set = all.filter(|(_, value): &(OsString, OsString)| !value.is_empty());
        self.vars = set.filter_map(|(name, value)| Some((ours(name)?, value))).collect();
        self
    }

    /// Sets options of the tracker: where LiteFS's HTTP API is, this node's name, which detectors
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

    /// Where this node takes writes of the others while it is the primary.
    ///
    /// Default: port 20203 (`rpc_port`) on all addresses if a secret is set, else on the loopback
    /// address only. Environment: `LITEFS_RPC_LISTEN`, such as `0.0.0.0:20203`.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// The address, `host:port`, under which the other nodes reach this one.
    ///
    /// Default: the address listened on if it is a loopback address, else this node's LiteFS host
    /// name with the port listened on. Environment: `LITEFS_RPC_ADVERTISE`.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// Whether this process takes writes of the other nodes. Say `false` in all but one of a node's
    /// processes.
    ///
    /// Default `true`. Environment: `LITEFS_SERVE` (`1`, `0`, `true`, `false`).
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = Some(serve);
        self
    }

    /// The secret that all nodes of the cluster share, at least 16 bytes. It never travels.
    ///
    /// Default: none, and then the server listens on loopback only. Environment:
    /// `LITEFS_RPC_SECRET`.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Allows a server that anybody who reaches it can make run SQL. For networks that are closed
    /// by other means.
    ///
    /// Default `false`. Environment: `LITEFS_RPC_ALLOW_INSECURE`.
    pub fn allow_insecure(mut self, allow: bool) -> Self {
        self.allow_insecure = Some(allow);
        self
    }

    /// Whether a node that becomes the primary switches the database to WAL. Without WAL readers
    /// and writers of a node block each other, and LiteFS commits at half the speed.
    ///
    /// Default `true`. Environment: `LITEFS_WAL`.
    pub fn wal(mut self, wal: bool) -> Self {
        self.wal = Some(wal);
        self
    }

    /// How long a write waits while no primary is known.
    ///
    /// Default 5 s. Environment: `LITEFS_PRIMARY_TIMEOUT_MS`.
    pub fn primary_timeout(mut self, timeout: Duration) -> Self {
        self.primary_timeout = Some(timeout);
        self
    }

    /// How long a forwarded statement may take in all, retries included.
    ///
    /// Default 10 s. Environment: `LITEFS_FORWARD_TIMEOUT_MS`.
    pub fn forward_timeout(mut self, timeout: Duration) -> Self {
        self.forward_timeout = Some(timeout);
        self
    }

    /// How long a read waits for this node to catch up before [`when_behind`](Self::when_behind)
    /// applies.
    ///
    /// Default 1 s. Environment: `LITEFS_READ_TIMEOUT_MS`.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = Some(timeout);
        self
    }

    /// What reads must see.
    ///
    /// Default [`Consistency::ReadYourWrites`]. Environment: `LITEFS_CONSISTENCY`
    /// (`read-your-writes`, `session`, `eventual`, `strong`).
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// What a read does when the node has not caught up in time.
    ///
    /// Default [`WhenBehind::ReadPrimary`]. Environment: `LITEFS_WHEN_BEHIND` (`read-primary`,
    /// `read-stale`, `fail`).
    pub fn when_behind(mut self, policy: WhenBehind) -> Self {
        self.when_behind = Some(policy);
        self
    }

    /// How often a forwarded write may be applied when its answer is lost.
    ///
    /// Default [`Delivery::ExactlyOnce`]. Environment: `LITEFS_DELIVERY` (`exactly-once`,
    /// `at-most-once`).
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// How statements that write run while this node is the primary itself, outside of
    /// transactions.
    ///
    /// Default [`LocalWrites::Direct`]. Environment: `LITEFS_LOCAL_WRITES` (`direct`, `grouped`).
    pub fn local_writes(mut self, local_writes: LocalWrites) -> Self {
        self.local_writes = Some(local_writes);
        self
    }

    /// The most connections to the primary that callers have to themselves, one for as long as its
    /// statement or transaction takes, beside the one that all share. They are opened when they are
    /// of use, and make a write of few callers faster.
    ///
    /// Default 2. Environment: `LITEFS_LANES`.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Who must have a write before it is acknowledged. What is not there within `forward_timeout`
    /// fails with [`Failure::NotReplicated`](crate::Failure::NotReplicated); it is applied all the
    /// same.
    ///
    /// Default [`Durability::Primary`]. Environment: `LITEFS_DURABILITY` (`primary`, `here`, or a
    /// number of replicas).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long a read is held back while this node is behind the primary, so that LiteFS finds the
    /// moment without readers that it needs to catch up. Zero: never.
    ///
    /// Default 20 ms. Environment: `LITEFS_READ_PAUSE_MS`.
    pub fn read_pause(mut self, pause: Duration) -> Self {
        self.read_pause = Some(pause);
        self
    }

    /// How long this node, as the primary, keeps the outcomes of writes. At least twice
    /// `forward_timeout`: an outcome that is pruned while somebody may still send its write again
    /// protects nothing.
    ///
    /// Default 5 min. Environment: `LITEFS_OUTCOME_RETENTION_MS`.
    pub fn outcome_retention(mut self, retention: Duration) -> Self {
        self.outcome_retention = Some(retention);
        self
    }

    /// What is refused rather than sent or run.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Decides where statements run. Default [`ForwardWrites`].
    pub fn router(mut self, router: impl Router) -> Self {
        self.router = Arc::new(router);
        self
    }

    /// Runs on every SQLite connection that the library opens: the application's on this node, the
    /// one that runs the other nodes' writes while this node is the primary, and those that run
    /// their reads. The place to register SQL functions and collations, so that they exist wherever
    /// a statement runs. It should not write: a connection is also opened while somebody else's
    /// transaction is open.
    pub fn on_connection(
        mut self,
        hook: impl Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Runs when a failover has lost writes that this process was told are done. It is also logged,
    /// as an error, and counted (`litefs_lost_writes_total`). Runs on a thread for blocking work.
    pub fn on_lost_writes(mut self, hear: impl Fn(&LostWrites) + Send + Sync + 'static) -> Self {
        self.on_lost_writes = Some(Arc::new(hear));
        self
    }

    /// Whether SQLite's word for a commit is held against LiteFS's. Without it writes are
    /// acknowledged that LiteFS dropped: only for tests that must see that happen. Default `true`.
    #[doc(hidden)]
    pub fn prove_commits(mut self, prove: bool) -> Self {
        self.prove_commits = prove;
        self
    }
}

impl fmt::Debug for LiteFsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the variables, which may hold it.
        f.debug_struct("LiteFsBuilder").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}
