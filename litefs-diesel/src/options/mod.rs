#[cfg(test)]
mod tests;
mod vars;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_core::{Config, ConfigBuilder};
use litefs_rpc::sqlite::DEFAULT_RETENTION;
use litefs_rpc::wire::Delivery;
use litefs_rpc::{Limits, Secret};

use self::vars::{Vars, advertise, refused};
use crate::consistency::{Consistency, WhenBehind};
use crate::durability::Durability;
use crate::litefs::{LiteFs, StartError};
use crate::losses::{LostWrites, OnLostWrites};
use crate::router::{ForwardWrites, Router};

/// Runs on every SQLite connection that the library opens, before anything else does.
pub(crate) type ConnectionHook = Arc<dyn Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync>;

/// Sets up a [`LiteFs`] handle. Made by [`LiteFs::builder`].
///
/// Every option has a default that suits production; most can also be set by an environment variable, which is read
/// after [`from_env`](Self::from_env). What is set on the builder wins.
#[must_use]
pub struct LiteFsBuilder {
    tracker: ConfigBuilder,
    vars: Vec<(String, String)>,
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
        self.from_vars(std::env::vars())
    }

    /// Like [`from_env`](Self::from_env), with the variables given. Variables that are empty or not ours are ignored.
    pub fn from_vars(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.vars = vars
            .into_iter()
            .filter(|(name, value)| name.starts_with("LITEFS_") && !value.is_empty())
            .collect();
        self
    }

    /// Sets options of the tracker: where LiteFS's HTTP API is, this node's name, which detectors run, how often.
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
    /// Default: port 20203 (`rpc_port`) on all addresses if a secret is set, else on the loopback address only.
    /// Environment: `LITEFS_RPC_LISTEN`, such as `0.0.0.0:20203`.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// The address, `host:port`, under which the other nodes reach this one.
    ///
    /// Default: the address listened on if it is a loopback address, else this node's LiteFS host name with the port
    /// listened on. Environment: `LITEFS_RPC_ADVERTISE`.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// Whether this process takes writes of the other nodes. Say `false` in all but one of a node's processes.
    ///
    /// Default `true`. Environment: `LITEFS_SERVE` (`1`, `0`, `true`, `false`).
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = Some(serve);
        self
    }

    /// The secret that all nodes of the cluster share, at least 16 bytes. It never travels.
    ///
    /// Default: none, and then the server listens on loopback only. Environment: `LITEFS_RPC_SECRET`.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Allows a server that anybody who reaches it can make run SQL. For networks that are closed by other means.
    ///
    /// Default `false`. Environment: `LITEFS_RPC_ALLOW_INSECURE`.
    pub fn allow_insecure(mut self, allow: bool) -> Self {
        self.allow_insecure = Some(allow);
        self
    }

    /// Whether a node that becomes the primary switches the database to WAL. Without WAL readers and writers of a
    /// node block each other, and LiteFS commits at half the speed.
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

    /// How long a read waits for this node to catch up before [`when_behind`](Self::when_behind) applies.
    ///
    /// Default 1 s. Environment: `LITEFS_READ_TIMEOUT_MS`.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = Some(timeout);
        self
    }

    /// What reads must see.
    ///
    /// Default [`Consistency::ReadYourWrites`]. Environment: `LITEFS_CONSISTENCY` (`read-your-writes`, `session`,
    /// `eventual`, `strong`).
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// What a read does when the node has not caught up in time.
    ///
    /// Default [`WhenBehind::ReadPrimary`]. Environment: `LITEFS_WHEN_BEHIND` (`read-primary`, `read-stale`, `fail`).
    pub fn when_behind(mut self, policy: WhenBehind) -> Self {
        self.when_behind = Some(policy);
        self
    }

    /// How often a forwarded write may be applied when its answer is lost.
    ///
    /// Default [`Delivery::ExactlyOnce`]. Environment: `LITEFS_DELIVERY` (`exactly-once`, `at-most-once`).
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// Who must have a write before it is acknowledged. What is not there within `forward_timeout` fails with
    /// [`Failure::NotReplicated`](crate::Failure::NotReplicated); it is applied all the same.
    ///
    /// Default [`Durability::Primary`]. Environment: `LITEFS_DURABILITY` (`primary`, `here`, or a number of replicas).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long a read is held back while this node is behind the primary, so that LiteFS finds the moment without readers
    /// that it needs to catch up. Zero: never.
    ///
    /// Default 20 ms. Environment: `LITEFS_READ_PAUSE_MS`.
    pub fn read_pause(mut self, pause: Duration) -> Self {
        self.read_pause = Some(pause);
        self
    }

    /// How long this node, as the primary, keeps the outcomes of writes. At least twice `forward_timeout`: an outcome that
    /// is pruned while somebody may still send its write again protects nothing.
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

    /// Runs on every SQLite connection that the library opens: the application's on this node, and the one that runs
    /// the other nodes' writes while this node is the primary. The place to register SQL functions and collations,
    /// so that they exist wherever a statement runs.
    pub fn on_connection(
        mut self,
        hook: impl Fn(&mut SqliteConnection) -> QueryResult<()> + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Runs when a failover has lost writes that this process was told are done. It is also logged, as an error, and
    /// counted (`litefs_lost_writes_total`). Runs on a thread for blocking work.
    pub fn on_lost_writes(mut self, hear: impl Fn(&LostWrites) + Send + Sync + 'static) -> Self {
        self.on_lost_writes = Some(Arc::new(hear));
        self
    }

    /// Whether SQLite's word for a commit is held against LiteFS's. Without it writes are acknowledged that LiteFS dropped:
    /// only for tests that must see that happen. Default `true`.
    #[doc(hidden)]
    pub fn prove_commits(mut self, prove: bool) -> Self {
        self.prove_commits = prove;
        self
    }

    /// Starts tracking and, where LiteFS is, serving. Blocks until this node's role is known, at most about 1 s.
    ///
    /// # Errors
    /// [`StartError`] says which option is wrong, which address is taken, or that the process already has a handle for
    /// this database.
    pub fn start(self) -> Result<LiteFs, StartError> {
        LiteFs::start_with(self.build()?)
    }

    pub(crate) fn build(self) -> Result<Options, StartError> {
        let vars = Vars(&self.vars);
        let config = self.tracker.from_vars(self.vars.clone()).build()?;
        let secret = self.secret.or_else(|| vars.get("LITEFS_RPC_SECRET").map(|s| s.as_bytes().to_vec()));
        let secret = secret.map(Secret::new).transpose().map_err(|error| {
            // The value itself must not appear in an error.
            refused(
                "secret",
                Some("LITEFS_RPC_SECRET"),
                "(not shown)",
                &error.to_string(),
                "at least 16 bytes",
            )
        })?;
        let ip = if secret.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let default_listen = SocketAddr::new(IpAddr::V4(ip), config.rpc_port());
        let seconds = Duration::from_secs;
        let forward_timeout =
            vars.time("forward_timeout", "LITEFS_FORWARD_TIMEOUT_MS", self.forward_timeout, seconds(10))?;
        let outcome_retention = vars.time(
            "outcome_retention",
            "LITEFS_OUTCOME_RETENTION_MS",
            self.outcome_retention,
            DEFAULT_RETENTION.max(forward_timeout * 2),
        )?;
        if outcome_retention < forward_timeout * 2 {
            return Err(refused(
                "outcome_retention",
                Some("LITEFS_OUTCOME_RETENTION_MS"),
                &format!("{outcome_retention:?}"),
                &format!("forward_timeout is {forward_timeout:?}"),
                "at least twice forward_timeout",
            ));
        }
        Ok(Options {
            forward_timeout,
            outcome_retention,
            durability: vars
                .or(
                    "durability",
                    "LITEFS_DURABILITY",
                    self.durability,
                    "primary, here, or a number of replicas",
                )?
                .unwrap_or_default(),
            read_pause: match self.read_pause {
                Some(pause) => pause,
                None => vars
                    .or("read_pause", "LITEFS_READ_PAUSE_MS", None, "a whole number of milliseconds")?
                    .map_or(DEFAULT_READ_PAUSE, Duration::from_millis),
            },
            delivery: vars
                .or("delivery", "LITEFS_DELIVERY", self.delivery, "exactly-once or at-most-once")?
                .unwrap_or_default(),
            listen: vars
                .or("listen", "LITEFS_RPC_LISTEN", self.listen, "an address such as 0.0.0.0:20203")?
                .unwrap_or(default_listen),
            advertise: advertise(
                self.advertise.or_else(|| vars.get("LITEFS_RPC_ADVERTISE").map(str::to_owned)),
            )?,
            serve: vars.flag("serve", "LITEFS_SERVE", self.serve)?.unwrap_or(true),
            secret,
            allow_insecure: vars
                .flag("allow_insecure", "LITEFS_RPC_ALLOW_INSECURE", self.allow_insecure)?
                .unwrap_or(false),
            wal: vars.flag("wal", "LITEFS_WAL", self.wal)?.unwrap_or(true),
            primary_timeout: vars.time(
                "primary_timeout",
                "LITEFS_PRIMARY_TIMEOUT_MS",
                self.primary_timeout,
                seconds(5),
            )?,
            read_timeout: vars.time(
                "read_timeout",
                "LITEFS_READ_TIMEOUT_MS",
                self.read_timeout,
                seconds(1),
            )?,
            consistency: vars
                .or(
                    "consistency",
                    "LITEFS_CONSISTENCY",
                    self.consistency,
                    "read-your-writes, session, eventual or strong",
                )?
                .unwrap_or_default(),
            when_behind: vars
                .or(
                    "when_behind",
                    "LITEFS_WHEN_BEHIND",
                    self.when_behind,
                    "read-primary, read-stale or fail",
                )?
                .unwrap_or_default(),
            limits: self.limits,
            router: self.router,
            hook: self.hook,
            on_lost_writes: self.on_lost_writes,
            prove_commits: self.prove_commits,
            config,
        })
    }
}

impl fmt::Debug for LiteFsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the variables, which may hold it.
        f.debug_struct("LiteFsBuilder").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}

/// Some ten times what LiteFS needs to apply a transaction.
const DEFAULT_READ_PAUSE: Duration = Duration::from_millis(20);

/// A validated set of options.
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<String>,
    pub(crate) serve: bool,
    pub(crate) secret: Option<Secret>,
    pub(crate) allow_insecure: bool,
    pub(crate) wal: bool,
    pub(crate) primary_timeout: Duration,
    pub(crate) forward_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) consistency: Consistency,
    pub(crate) when_behind: WhenBehind,
    pub(crate) delivery: Delivery,
    pub(crate) outcome_retention: Duration,
    pub(crate) durability: Durability,
    pub(crate) read_pause: Duration,
    pub(crate) limits: Limits,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) hook: Option<ConnectionHook>,
    pub(crate) on_lost_writes: Option<OnLostWrites>,
    pub(crate) prove_commits: bool,
}
