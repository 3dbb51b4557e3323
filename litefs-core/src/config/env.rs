//! Options from environment variables, still as text: they are judged together with the builder's,
//! in one place.

use std::collections::HashMap;
use std::ffi::OsString;

use super::ConfigError;

/// One option's name in both worlds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) option: &'static str,
    pub(super) variable: &'static str,
}

const fn name(option: &'static str, variable: &'static str) -> Name {
    Name { option, variable }
}

pub(super) const HTTP_URL: Name = name("http_url", "LITEFS_HTTP_URL");
pub(super) const NODE: Name = name("node", "LITEFS_NODE");
pub(super) const RPC_PORT: Name = name("rpc_port", "LITEFS_RPC_PORT");
pub(super) const POLL_INTERVAL: Name = name("poll_interval", "LITEFS_POLL_INTERVAL_MS");
pub(super) const DEBOUNCE: Name = name("debounce", "LITEFS_DEBOUNCE_MS");
pub(super) const QUIET_AFTER: Name = name("quiet_after", "LITEFS_QUIET_AFTER_MS");
pub(super) const POSITION_POLL: Name = name("position_poll", "LITEFS_POSITION_POLL_MS");
pub(super) const HTTP_TIMEOUT: Name = name("http_timeout", "LITEFS_HTTP_TIMEOUT_MS");
pub(super) const RECONNECT_MIN: Name = name("reconnect_min", "LITEFS_RECONNECT_MIN_MS");
pub(super) const RECONNECT_MAX: Name = name("reconnect_max", "LITEFS_RECONNECT_MAX_MS");
pub(super) const REQUIRE: Name = name("require_litefs", "LITEFS_REQUIRE");
pub(super) const DETECTORS: Name = name("detectors", "LITEFS_DETECTORS");
pub(super) const TRACKING_TABLE: Name = name("tracking_table", "LITEFS_TRACKING_TABLE");

const NAMES: [Name; 13] = [
    HTTP_URL,
    NODE,
    RPC_PORT,
    POLL_INTERVAL,
    DEBOUNCE,
    QUIET_AFTER,
    POSITION_POLL,
    HTTP_TIMEOUT,
    RECONNECT_MIN,
    RECONNECT_MAX,
    REQUIRE,
    DETECTORS,
    TRACKING_TABLE,
];

/// The variables of these options and no others, which may be secret. An empty variable counts as
/// not set, as shells and compose files write it.
#[derive(Debug, Clone, Default)]
pub(super) struct Vars(HashMap<&'static str, OsString>);

impl Vars {
    pub(super) fn collect<K: Into<OsString>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let ours = |key: OsString| NAMES.iter().map(|name| name.variable).find(|name| key == *name);
        let pairs = vars.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self(
            pairs
                .filter(|(_, value): &(OsString, OsString)| !value.is_empty())
                .filter_map(|(key, value)| Some((ours(key)?, value)))
                .collect(),
        )
    }

    pub(super) fn has(&self, name: Name) -> bool {
        self.0.contains_key(name.variable)
    }

    /// The variable's text.
    pub(super) fn get(&self, name: Name) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.0.get(name.variable) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| {
            let shown = value.to_string_lossy();
            ConfigError::new(name.option, Some(name.variable), shown, ConfigError::UTF8)
        })
    }
}
