//! What can be set, and its defaults.

mod builder;
mod env;
mod error;
mod keywords;
mod resolve;
mod table_name;
mod url;

use std::path::Path;
use std::time::Duration;

pub use builder::ConfigBuilder;
pub use error::ConfigError;
pub use table_name::{TableName, TableNameError};
pub use url::DatabaseUrl;

use crate::NodeName;

/// Which sources of the role are consulted. All of them by default.
///
/// Environment: `LITEFS_DETECTORS`, a comma-separated list of the field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detectors {
    /// LiteFS's event stream, `GET /events`: authoritative while connected.
    pub events: bool,
    /// The `.primary` file of the mount.
    pub primary_file: bool,
    /// `GET /info`: decides what an absent `.primary` means.
    pub info: bool,
    /// The row a new primary writes to the tracking table. It runs in the crate that knows SQL.
    pub row: bool,
}

impl Detectors {
    /// Every detector on.
    pub const ALL: Self = Self { events: true, primary_file: true, info: true, row: true };

    /// Every detector off: a start for switching single ones on. Not a valid configuration by
    /// itself.
    pub const NONE: Self = Self { events: false, primary_file: false, info: false, row: false };
}

impl Default for Detectors {
    fn default() -> Self {
        Self::ALL
    }
}

/// A validated configuration. Made by [`Config::builder`]; every option is described on its
/// [`ConfigBuilder`] method.
#[derive(Debug, Clone)]
pub struct Config {
    url: DatabaseUrl,
    database_url: String,
    http_url: String,
    node: Option<NodeName>,
    rpc_port: u16,
    poll_interval: Duration,
    debounce: Duration,
    quiet_after: Duration,
    position_poll: Duration,
    http_timeout: Duration,
    reconnect_min: Duration,
    reconnect_max: Duration,
    require_litefs: bool,
    detectors: Detectors,
    tracking_table: TableName,
}

impl Config {
    /// The database and how SQLite opens it, as it was given.
    #[must_use]
    pub const fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// What to hand to SQLite for a connection that writes, whatever `mode` was given.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The absolute path of the database file.
    #[must_use]
    pub fn database(&self) -> &Path {
        self.url.path()
    }

    /// The directory the database lies in.
    #[must_use]
    pub fn mount(&self) -> &Path {
        self.database().parent().expect("an absolute file path has a parent")
    }

    /// The database's file name: what LiteFS calls the database in its events.
    #[must_use]
    pub fn database_name(&self) -> &str {
        url::name_of(self.database()).expect("a configuration has a database with a name")
    }

    /// See [`ConfigBuilder::http_url`]. Without a trailing slash.
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.http_url
    }

    /// See [`ConfigBuilder::node`].
    #[must_use]
    pub const fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// See [`ConfigBuilder::rpc_port`].
    #[must_use]
    pub const fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// See [`ConfigBuilder::poll_interval`].
    #[must_use]
    pub const fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// See [`ConfigBuilder::debounce`].
    #[must_use]
    pub const fn debounce(&self) -> Duration {
        self.debounce
    }

    /// See [`ConfigBuilder::quiet_after`].
    #[must_use]
    pub const fn quiet_after(&self) -> Duration {
        self.quiet_after
    }

    /// See [`ConfigBuilder::position_poll`].
    #[must_use]
    pub const fn position_poll(&self) -> Duration {
        self.position_poll
    }

    /// See [`ConfigBuilder::http_timeout`].
    #[must_use]
    pub const fn http_timeout(&self) -> Duration {
        self.http_timeout
    }

    /// See [`ConfigBuilder::reconnect_min`].
    #[must_use]
    pub const fn reconnect_min(&self) -> Duration {
        self.reconnect_min
    }

    /// See [`ConfigBuilder::reconnect_max`].
    #[must_use]
    pub const fn reconnect_max(&self) -> Duration {
        self.reconnect_max
    }

    /// See [`ConfigBuilder::require_litefs`].
    #[must_use]
    pub const fn require_litefs(&self) -> bool {
        self.require_litefs
    }

    /// See [`ConfigBuilder::detectors`].
    #[must_use]
    pub const fn detectors(&self) -> Detectors {
        self.detectors
    }

    /// See [`ConfigBuilder::tracking_table`].
    #[must_use]
    pub const fn tracking_table(&self) -> &TableName {
        &self.tracking_table
    }
}

#[cfg(test)]
mod tests;
