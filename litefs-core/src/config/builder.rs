//! Setting options, and the one place that judges them.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::env::{self, Name, Vars};
use super::{Config, ConfigError, DatabaseUrl, Detectors, TableName, url};

const DURATION: &str = "a whole number of milliseconds, at least 1 and at most one day";
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Collects options; what is not set comes from the environment, if asked to, and else from the
/// defaults.
///
/// Nothing is checked before [`build`](Self::build).
#[derive(Debug, Clone)]
pub struct ConfigBuilder {
    database: Option<String>,
    vars: Vars,
    http_url: Option<String>,
    node: Option<String>,
    rpc_port: Option<u16>,
    poll_interval: Option<Duration>,
    debounce: Option<Duration>,
    quiet_after: Option<Duration>,
    position_poll: Option<Duration>,
    http_timeout: Option<Duration>,
    reconnect_min: Option<Duration>,
    reconnect_max: Option<Duration>,
    require_litefs: Option<bool>,
    detectors: Option<Detectors>,
    tracking_table: Option<String>,
}

/// One setter per option: the same line fifteen times is no easier to read.
macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $arg:ty),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $field(mut self, value: $arg) -> Self {
            self.$field = Some(value.into());
            self
        })*
    };
}

impl Config {
    /// Starts a configuration for one database: a path, or a `sqlite://` or `file:` URL
    /// ([`DatabaseUrl`]).
    ///
    /// The mount is the directory that the file lies in; symbolic links are followed.
    #[must_use]
    pub fn builder(database: impl AsRef<Path>) -> ConfigBuilder {
        ConfigBuilder::new(database.as_ref())
    }
}

impl ConfigBuilder {
    fn new(database: &Path) -> Self {
        Self {
            database: database.to_str().map(str::to_owned),
            vars: Vars::default(),
            http_url: None,
            node: None,
            rpc_port: None,
            poll_interval: None,
            debounce: None,
            quiet_after: None,
            position_poll: None,
            http_timeout: None,
            reconnect_min: None,
            reconnect_max: None,
            require_litefs: None,
            detectors: None,
            tracking_table: None,
        }
    }

    /// Takes options that are not set on the builder from the process's environment, whichever is
    /// called first.
    #[must_use]
    pub fn from_env(self) -> Self {
        self.from_vars(std::env::vars_os())
    }

    /// Like [`from_env`](Self::from_env), with the variables given. Variables that are empty or not
    /// ours are ignored.
    #[must_use]
    pub fn from_vars<K, V>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<std::ffi::OsString>,
        V: Into<std::ffi::OsString>,
    {
        self.vars = Vars::collect(vars);
        self
    }

    setters! {
        /// Base URL of the HTTP API of the LiteFS that serves this mount; plain `http`.
        ///
        /// Default `http://localhost:20202`, LiteFS's own. Environment: `LITEFS_HTTP_URL`.
        http_url: &str,
        /// This node's name, exactly as its LiteFS calls it (`lease.hostname`).
        ///
        /// Default: learned from LiteFS the first time this node is the primary. Environment:
        /// `LITEFS_NODE`.
        node: &str,
        /// Port on which the nodes of this cluster take forwarded writes, for names that carry
        /// none.
        ///
        /// Default 20203. Environment: `LITEFS_RPC_PORT`.
        rpc_port: u16,
        /// How often the mount's files are looked at, and `/info` is asked while the event stream
        /// has nothing to say.
        ///
        /// Default 250 ms. Environment: `LITEFS_POLL_INTERVAL_MS`.
        poll_interval: Duration,
        /// How long a primary that was lost and is named again must stay named before it is
        /// believed: LiteFS names a dead primary for up to 10 ms, once a second.
        ///
        /// Default 20 ms. Environment: `LITEFS_DEBOUNCE_MS`.
        debounce: Duration,
        /// After how long a silence the event stream has to be confirmed.
        ///
        /// Default 10 s. Environment: `LITEFS_QUIET_AFTER_MS`.
        quiet_after: Duration,
        /// How often `<db>-pos` is read while a call waits for a position.
        ///
        /// Default 2 ms. Environment: `LITEFS_POSITION_POLL_MS`.
        position_poll: Duration,
        /// How long LiteFS may take to answer a request.
        ///
        /// Default 1 s. Environment: `LITEFS_HTTP_TIMEOUT_MS`.
        http_timeout: Duration,
        /// The first pause before the event stream is connected again; it doubles with each
        /// failure, less a jitter.
        ///
        /// Default 50 ms. Environment: `LITEFS_RECONNECT_MIN_MS`.
        reconnect_min: Duration,
        /// The longest pause before the event stream is connected again.
        ///
        /// Default 2 s. Environment: `LITEFS_RECONNECT_MAX_MS`.
        reconnect_max: Duration,
        /// Whether to refuse to start where there is no LiteFS. For production.
        ///
        /// Default `false`. Environment: `LITEFS_REQUIRE` (`1`, `0`, `true`, `false`).
        require_litefs: bool,
        /// Which sources of the role are consulted. Switching all of them off is refused.
        ///
        /// Default: all. Environment: `LITEFS_DETECTORS`, e.g. `events,primary_file,info,row`.
        detectors: Detectors,
        /// Table in which a primary leaves its address; see [`TableName`] for what is allowed.
        ///
        /// Default `_litefs_primary`. Environment: `LITEFS_TRACKING_TABLE`.
        tracking_table: &str,
    }

    /// Judges every option.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first option whose value cannot work, and the environment variable
    /// it came from.
    pub fn build(self) -> Result<Config, ConfigError> {
        let vars = &self.vars;
        let duration = |name, set, default_ms| duration(vars, name, set, default_ms);
        let url = database_of(self.database)?;
        let reconnect_min = duration(env::RECONNECT_MIN, self.reconnect_min, 50)?;
        let reconnect_max = duration(env::RECONNECT_MAX, self.reconnect_max, 2_000)?;
        if reconnect_max < reconnect_min {
            let by_builder = self.reconnect_max.is_some();
            let value = format!("{reconnect_max:?}");
            return Err(refuse(
                vars,
                env::RECONNECT_MAX,
                value,
                "no less than `reconnect_min`",
                by_builder,
            ));
        }
        Ok(Config {
            database_url: url.clone().writable().to_string(),
            url,
            http_url: text(vars, env::HTTP_URL, self.http_url, HTTP_URL, http_url)?
                .unwrap_or_else(|| "http://localhost:20202".to_owned()),
            node: text(vars, env::NODE, self.node, NODE, |s| s.parse().ok())?,
            rpc_port: port(vars, self.rpc_port)?,
            poll_interval: duration(env::POLL_INTERVAL, self.poll_interval, 250)?,
            debounce: duration(env::DEBOUNCE, self.debounce, 20)?,
            quiet_after: duration(env::QUIET_AFTER, self.quiet_after, 10_000)?,
            position_poll: duration(env::POSITION_POLL, self.position_poll, 2)?,
            http_timeout: duration(env::HTTP_TIMEOUT, self.http_timeout, 1_000)?,
            reconnect_min,
            reconnect_max,
            require_litefs: switch(vars, self.require_litefs)?,
            detectors: detectors(vars, self.detectors)?,
            tracking_table: text(
                vars,
                env::TRACKING_TABLE,
                self.tracking_table,
                TableName::ALLOWED,
                |s| s.parse().ok(),
            )?
            .unwrap_or_default(),
        })
    }
}

fn refuse(
    vars: &Vars,
    name: Name,
    value: impl Display,
    allowed: &'static str,
    by_builder: bool,
) -> ConfigError {
    let from_env = !by_builder && vars.has(name);
    let variable = from_env.then_some(name.variable);
    ConfigError { option: name.option, variable, value: value.to_string(), allowed }
}

/// The builder's text or else the variable's, parsed; `None` if neither is set.
fn text<T>(
    vars: &Vars,
    name: Name,
    set: Option<String>,
    allowed: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    let by_builder = set.is_some();
    let variable = if by_builder { None } else { vars.get(name)? };
    let Some(text) = set.or_else(|| variable.map(str::to_owned)) else { return Ok(None) };
    match parse(&text) {
        Some(value) => Ok(Some(value)),
        None => Err(refuse(vars, name, text, allowed, by_builder)),
    }
}

fn database_of(given: Option<String>) -> Result<DatabaseUrl, ConfigError> {
    let refuse = |value: &str, allowed| ConfigError::new("database", None, value, allowed);
    let given = given.ok_or_else(|| refuse("?", "a path that is valid UTF-8"))?;
    let url = DatabaseUrl::parse(&given)?;
    url::name_of(url.path()).ok_or_else(|| refuse(&given, "a file name that is valid UTF-8"))?;
    url.check_replicable()?;
    Ok(url)
}

fn duration(
    vars: &Vars,
    name: Name,
    set: Option<Duration>,
    default: u64,
) -> Result<Duration, ConfigError> {
    let within = |duration: &Duration| !duration.is_zero() && *duration <= LONGEST;
    match set {
        Some(duration) if within(&duration) => Ok(duration),
        Some(duration) => Err(refuse(vars, name, format!("{duration:?}"), DURATION, true)),
        None => text(vars, name, None, DURATION, |text| {
            text.parse().ok().map(Duration::from_millis).filter(within)
        })
        .map(|found| found.unwrap_or(Duration::from_millis(default))),
    }
}

fn port(vars: &Vars, set: Option<u16>) -> Result<u16, ConfigError> {
    let set = set.map(|port| port.to_string());
    let parse = |text: &str| text.parse().ok().filter(|port| *port != 0);
    Ok(text(vars, env::RPC_PORT, set, "a port from 1 to 65535", parse)?.unwrap_or(20203))
}

fn switch(vars: &Vars, set: Option<bool>) -> Result<bool, ConfigError> {
    let parse = |text: &str| match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    };
    let found =
        text(vars, env::REQUIRE, set.map(|on| on.to_string()), "1, 0, true or false", parse)?;
    Ok(found.unwrap_or_default())
}

const DETECTOR_LIST: &str = "at least one of events, primary_file, info, row, separated by commas";

fn detectors(vars: &Vars, set: Option<Detectors>) -> Result<Detectors, ConfigError> {
    match set {
        Some(Detectors::NONE) => Err(refuse(vars, env::DETECTORS, "none", DETECTOR_LIST, true)),
        Some(detectors) => Ok(detectors),
        None => {
            let found = text(vars, env::DETECTORS, None, DETECTOR_LIST, detector_list)?;
            Ok(found.unwrap_or_default())
        }
    }
}

fn detector_list(text: &str) -> Option<Detectors> {
    let mut found = Detectors::NONE;
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "events" => found.events = true,
            "primary_file" => found.primary_file = true,
            "info" => found.info = true,
            "row" => found.row = true,
            _ => return None,
        }
    }
    (found != Detectors::NONE).then_some(found)
}

const NODE: &str = "a host name of at most 255 bytes without whitespace";
const HTTP_URL: &str = "an http:// URL with a host and without query or fragment";

/// The URL without a trailing slash, so that a path can be put behind it.
fn http_url(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let plain = url.scheme() == "http"
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}
