//! Options from environment variables, still as text: they are judged together with the builder's, in one place.

use std::collections::HashMap;
use std::ffi::OsString;

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

/// The variables that concern us. An empty variable counts as not set, as shells and compose files write it.
#[derive(Debug, Clone, Default)]
pub(super) struct Vars(HashMap<String, OsString>);

impl Vars {
    pub(super) fn collect<K: Into<OsString>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let ours = |key: OsString| key.into_string().ok().filter(|key| key.starts_with("LITEFS_"));
        let pairs = vars.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self(
            pairs
                .filter(|(_, value): &(OsString, OsString)| !value.is_empty())
                .filter_map(|(key, value)| Some((ours(key)?, value)))
                .collect(),
        )
    }

    /// The variable's text. What is not UTF-8 is given lossily: no option accepts it, so its error shows it.
    pub(super) fn get(&self, name: Name) -> Option<String> {
        self.0.get(name.variable).map(|value| value.to_string_lossy().into_owned())
    }
}
