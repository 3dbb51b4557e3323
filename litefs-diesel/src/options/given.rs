//! The value of one option: the builder's, else the variable's, else the default.

use std::collections::HashMap;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use litefs_core::ConfigError;
use litefs_rpc::Secret;

use super::start_error::StartError;

/// The environment variables whose names start with `LITEFS_`.
#[derive(Clone, Default)]
pub(super) struct Vars(HashMap<String, OsString>);

impl Vars {
    /// An empty variable counts as not set, as shells and compose files write it.
    pub(super) fn collect<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let name = |name: OsString| name.into_string().ok().filter(|n| n.starts_with("LITEFS_"));
        let all = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        let set = all.filter(|(_, value): &(OsString, OsString)| !value.is_empty());
        Self(set.filter_map(|(variable, value)| Some((name(variable)?, value))).collect())
    }
}

impl IntoIterator for Vars {
    type Item = (String, OsString);
    type IntoIter = std::collections::hash_map::IntoIter<String, OsString>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What the builder and the environment say of one option.
pub(super) struct Given<'a, T> {
    pub(super) option: &'static str,
    pub(super) variable: &'static str,
    /// What the variable may hold, for errors.
    pub(super) allowed: &'static str,
    /// The builder's value.
    pub(super) set: Option<T>,
    pub(super) vars: &'a Vars,
}

impl<T> Given<'_, T> {
    /// The builder's value, else the variable's.
    pub(super) fn parse(mut self) -> Result<Option<T>, StartError>
    where
        T: FromStr,
    {
        self.parse_with(|text| text.parse().ok())
    }

    fn parse_with(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StartError> {
        if let Some(set) = self.set.take() {
            return Ok(Some(set));
        }
        let Some(text) = self.text()? else { return Ok(None) };
        match parse(text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.refuse(text, self.allowed, true)),
        }
    }

    /// The variable's text. An error does not show what it holds, which may be secret.
    fn text(&self) -> Result<Option<&str>, StartError> {
        match self.vars.0.get(self.variable).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text)),
            Some(None) => Err(self.refuse("(not shown)", ConfigError::UTF8, true)),
        }
    }

    fn refuse(
        &self,
        value: impl Into<String>,
        allowed: &'static str,
        by_variable: bool,
    ) -> StartError {
        let variable = by_variable.then_some(self.variable);
        StartError::Config(ConfigError::new(self.option, variable, value, allowed))
    }
}

impl Given<'_, bool> {
    pub(super) fn flag(mut self, default: bool) -> Result<bool, StartError> {
        let flag = self.parse_with(|text| match text {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        });
        Ok(flag?.unwrap_or(default))
    }
}

impl Given<'_, Duration> {
    /// A time, of whole milliseconds in the variable.
    pub(super) fn time(mut self, default: Duration) -> Result<Duration, StartError> {
        Ok(self.milliseconds()?.unwrap_or(default))
    }

    /// A time that is not zero.
    pub(super) fn timeout(mut self, default: Duration) -> Result<Duration, StartError> {
        let by_variable = self.set.is_none();
        let timeout = self.milliseconds()?.unwrap_or(default);
        if timeout < Duration::from_millis(1) {
            let value = format!("{timeout:?}");
            return Err(self.refuse(value, "a time of at least 1 ms", by_variable));
        }
        Ok(timeout)
    }

    /// How long outcomes are kept: as long as a write may be sent again.
    pub(super) fn retention(
        mut self,
        default: Duration,
        forward_timeout: Duration,
    ) -> Result<Duration, StartError> {
        let by_variable = self.set.is_none();
        let least = forward_timeout * 2;
        let retention = self.milliseconds()?.unwrap_or(default.max(least));
        if retention < least {
            let value = format!("{retention:?}: forward_timeout is {forward_timeout:?}");
            return Err(self.refuse(value, "at least twice forward_timeout", by_variable));
        }
        Ok(retention)
    }

    fn milliseconds(&mut self) -> Result<Option<Duration>, StartError> {
        self.parse_with(|text| text.parse().ok().map(Duration::from_millis))
    }
}

impl Given<'_, String> {
    /// An address that other nodes can connect to.
    pub(super) fn address(mut self) -> Result<Option<String>, StartError> {
        let by_variable = self.set.is_none();
        let is_address = |text: &str| match text.rsplit_once(':') {
            Some((host, port)) => {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            }
            None => false,
        };
        match self.parse_with(|text| Some(text.to_owned()))? {
            Some(text) if !is_address(&text) => Err(self.refuse(text, self.allowed, by_variable)),
            address => Ok(address),
        }
    }
}

impl Given<'_, Vec<u8>> {
    /// The secret. No error shows its value.
    pub(super) fn secret(mut self) -> Result<Option<Secret>, StartError> {
        let by_variable = self.set.is_none();
        let secret = self.parse_with(|text| Some(text.as_bytes().to_vec()))?;
        secret
            .map(Secret::new)
            .transpose()
            .map_err(|error| self.refuse(format!("({} bytes)", error.0), self.allowed, by_variable))
    }
}
