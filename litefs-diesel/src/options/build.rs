//! From what was set and the environment to a validated set of options.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use litefs_core::Config;
use litefs_rpc::sqlite::DEFAULT_RETENTION;
use litefs_rpc::wire::Delivery;
use litefs_rpc::{Limits, Secret};

use super::StartError;
use super::vars::{Vars, advertise, refused};
use super::{ConnectionHook, LiteFsBuilder};
use crate::consistency::{Consistency, WhenBehind};
use crate::loss::ack_log::OnLostWrites;
use crate::options::durability::Durability;
use crate::options::local_writes::LocalWrites;
use crate::router::Router;

/// Some ten times what LiteFS needs to apply a transaction.
const DEFAULT_READ_PAUSE: Duration = Duration::from_millis(20);

const DEFAULT_LANES: usize = 2;

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
    pub(crate) local_writes: LocalWrites,
    pub(crate) lanes: usize,
    pub(crate) outcome_retention: Duration,
    pub(crate) durability: Durability,
    pub(crate) read_pause: Duration,
    pub(crate) limits: Limits,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) hook: Option<ConnectionHook>,
    pub(crate) on_lost_writes: Option<OnLostWrites>,
    pub(crate) prove_commits: bool,
}

impl LiteFsBuilder {
    pub(crate) fn build(self) -> Result<Options, StartError> {
        let vars = Vars(&self.vars);
        let config = self.tracker.from_vars(self.vars.clone()).build()?;
        let secret = secret(self.secret, &vars)?;
        let ip = if secret.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let default_listen = SocketAddr::new(IpAddr::V4(ip), config.rpc_port());
        let seconds = Duration::from_secs;
        let forward_timeout = vars.time(
            "forward_timeout",
            "LITEFS_FORWARD_TIMEOUT_MS",
            self.forward_timeout,
            seconds(10),
        )?;
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
                    .or(
                        "read_pause",
                        "LITEFS_READ_PAUSE_MS",
                        None,
                        "a whole number of milliseconds",
                    )?
                    .map_or(DEFAULT_READ_PAUSE, Duration::from_millis),
            },
            delivery: vars
                .or("delivery", "LITEFS_DELIVERY", self.delivery, "exactly-once or at-most-once")?
                .unwrap_or_default(),
            local_writes: vars
                .or("local_writes", "LITEFS_LOCAL_WRITES", self.local_writes, "direct or grouped")?
                .unwrap_or_default(),
            lanes: vars
                .or("lanes", "LITEFS_LANES", self.lanes, "a whole number")?
                .unwrap_or(DEFAULT_LANES),
            listen: vars
                .or("listen", "LITEFS_RPC_LISTEN", self.listen, "an address such as 0.0.0.0:20203")?
                .unwrap_or(default_listen),
            advertise: advertise(&vars, self.advertise)?,
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

/// The builder's secret, else the variable's.
fn secret(set: Option<Vec<u8>>, vars: &Vars<'_>) -> Result<Option<Secret>, StartError> {
    const VARIABLE: &str = "LITEFS_RPC_SECRET";
    let variable = set.is_none().then_some(VARIABLE);
    let secret = match set {
        Some(set) => Some(set),
        None => vars.get("secret", VARIABLE)?.map(|secret| secret.as_bytes().to_vec()),
    };
    // The value itself must not appear in an error.
    secret.map(Secret::new).transpose().map_err(|error| {
        refused("secret", variable, &format!("({} bytes)", error.0), "", "at least 16 random bytes")
    })
}
