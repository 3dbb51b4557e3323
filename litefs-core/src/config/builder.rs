//! The options: their documentation, types, variables and defaults.

use std::path::Path;
use std::time::Duration;

use super::define::options;
use super::detectors::Detectors;
use super::error::ConfigError;
use super::given::{Given, Vars};
use super::table_name::TableName;
use super::url::{self, DatabaseUrl};
use crate::NodeName;

const DURATION: &str = "a whole number of milliseconds, at least 1 and at most one day";

options! {
    /// Base URL of the HTTP API of the LiteFS that serves this mount; plain `http`.
    ///
    /// Default `http://localhost:20202`, LiteFS's own.
    http_url(&str): String => String,
    get &str: |config| &config.http_url,
    "LITEFS_HTTP_URL": "an http:// URL with a host and without query or fragment",
    |given| given.parse(http_url).map(|url| url.unwrap_or_else(|| HTTP_URL.to_owned()));

    /// This node's name, exactly as its LiteFS calls it (`lease.hostname`).
    ///
    /// Default: learned from LiteFS the first time this node is the primary.
    node(&str): String => Option<NodeName>,
    get Option<&NodeName>: |config| config.node.as_ref(),
    "LITEFS_NODE": "a host name of at most 255 bytes without whitespace",
    |given| given.parse(|name| name.parse().ok());

    /// The port on which the nodes of this cluster take forwarded writes, for names without a port.
    ///
    /// Default 20203.
    rpc_port(u16): u16 => u16,
    get u16: |config| config.rpc_port,
    "LITEFS_RPC_PORT": "a port from 1 to 65535",
    |given| given.port(20_203);

    /// How often the mount's files are read, and `/info` is asked while the event stream is not
    /// connected.
    ///
    /// Default 250 ms.
    poll_interval(Duration): Duration => Duration,
    get Duration: |config| config.poll_interval,
    "LITEFS_POLL_INTERVAL_MS": DURATION,
    |given| given.duration(250);

    /// How long a primary that was lost and is named again must stay named before it is believed:
    /// LiteFS names a dead primary for up to 10 ms, once a second.
    ///
    /// Default 20 ms.
    debounce(Duration): Duration => Duration,
    get Duration: |config| config.debounce,
    "LITEFS_DEBOUNCE_MS": DURATION,
    |given| given.duration(20);

    /// How long the event stream may be silent before it has to be confirmed.
    ///
    /// Default 10 s.
    quiet_after(Duration): Duration => Duration,
    get Duration: |config| config.quiet_after,
    "LITEFS_QUIET_AFTER_MS": DURATION,
    |given| given.duration(10_000);

    /// How often `<db>-pos` is read while a caller waits for a position.
    ///
    /// Default 2 ms.
    position_poll(Duration): Duration => Duration,
    get Duration: |config| config.position_poll,
    "LITEFS_POSITION_POLL_MS": DURATION,
    |given| given.duration(2);

    /// How long LiteFS may take to answer a request.
    ///
    /// Default 1 s.
    http_timeout(Duration): Duration => Duration,
    get Duration: |config| config.http_timeout,
    "LITEFS_HTTP_TIMEOUT_MS": DURATION,
    |given| given.duration(1_000);

    /// The first pause before the event stream is connected again. It doubles with each failure,
    /// less a jitter.
    ///
    /// Default 50 ms.
    reconnect_min(Duration): Duration => Duration,
    get Duration: |config| config.reconnect_min,
    "LITEFS_RECONNECT_MIN_MS": DURATION,
    |given| given.duration(50);

    /// The longest pause before the event stream is connected again.
    ///
    /// Default 2 s.
    reconnect_max(Duration): Duration => Duration,
    get Duration: |config| config.reconnect_max,
    "LITEFS_RECONNECT_MAX_MS": DURATION,
    |given| given.reconnect_max(2_000, reconnect_min);

    /// Whether to refuse to start without LiteFS. For production.
    ///
    /// Default `false`. `1`, `0`, `true` or `false` in the environment.
    require_litefs(bool): bool => bool,
    get bool: |config| config.require_litefs,
    "LITEFS_REQUIRE": "1, 0, true or false",
    |given| given.flag(false);

    /// The sources of the role that are used. At least one must be on.
    ///
    /// Default: all. In the environment a list such as `events,primary_file,info,row`.
    detectors(Detectors): Detectors => Detectors,
    get Detectors: |config| config.detectors,
    "LITEFS_DETECTORS": "at least one of events, primary_file, info, row, separated by commas",
    |given| given.detectors();

    /// The table that contains the primary's address; see [`TableName`] for what is allowed.
    ///
    /// Default `_litefs_primary`.
    tracking_table(&str): String => TableName,
    get &TableName: |config| &config.tracking_table,
    "LITEFS_TRACKING_TABLE": TableName::ALLOWED,
    |given| given.parse(|name| name.parse().ok()).map(Option::unwrap_or_default);
}

impl ConfigBuilder {
    /// Takes options that are not set on the builder from the process's environment, whichever is
    /// called first.
    #[must_use]
    pub fn from_env(self) -> Self {
        self.from_vars(std::env::vars_os())
    }

    /// Like [`from_env`](Self::from_env), with the variables given. Empty variables, and those that
    /// are not options, are ignored.
    #[must_use]
    pub fn from_vars<K, V>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<std::ffi::OsString>,
        V: Into<std::ffi::OsString>,
    {
        self.vars = Vars::collect(VARIABLES, vars);
        self
    }
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

    /// The database and how SQLite opens it, as it was given.
    #[must_use]
    pub const fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// The URL for a SQLite connection that writes, whatever `mode` was given.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The absolute path of the database file.
    #[must_use]
    pub fn database(&self) -> &Path {
        self.url.path()
    }

    /// The directory that contains the database.
    #[must_use]
    pub fn mount(&self) -> &Path {
        self.database().parent().expect("an absolute file path has a parent")
    }

    /// The database's file name: what LiteFS calls the database in its events.
    #[must_use]
    pub fn database_name(&self) -> &str {
        url::name_of(self.database()).expect("a configuration has a database with a name")
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

const HTTP_URL: &str = "http://localhost:20202";

/// The URL without a trailing slash, so that a path can be appended.
fn http_url(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let plain = url.scheme() == "http"
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}
