//! The value of one option: the builder's, else the variable's, else the default.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use super::detectors::Detectors;
use super::error::ConfigError;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The variables of these options and no others, which may be secret. An empty variable counts as
/// not set, as shells and compose files write it.
#[derive(Debug, Clone, Default)]
pub(super) struct Vars(HashMap<&'static str, OsString>);

impl Vars {
    pub(super) fn collect<K: Into<OsString>, V: Into<OsString>>(
        names: &[&'static str],
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let ours = |key: OsString| names.iter().copied().find(|name| key == *name);
        let pairs = vars.into_iter().map(|(key, value)| (key.into(), value.into()));
        let set = pairs.filter(|(_, value): &(OsString, OsString)| !value.is_empty());
        Self(set.filter_map(|(key, value)| Some((ours(key)?, value))).collect())
    }
}

/// What the builder and the environment say of one option.
pub(super) struct Given<'a, T> {
    pub(super) option: &'static str,
    pub(super) variable: &'static str,
    /// What is allowed, for errors.
    pub(super) allowed: &'static str,
    /// The builder's value.
    pub(super) set: Option<T>,
    pub(super) vars: &'a Vars,
}

impl<T> Given<'_, T> {
    /// The builder's value if it is accepted, else the variable's text, parsed.
    fn value(
        &self,
        accepts: impl FnOnce(&T) -> bool,
        show: impl FnOnce(&T) -> String,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: Clone,
    {
        match &self.set {
            Some(set) if accepts(set) => Ok(Some(set.clone())),
            Some(set) => Err(self.refuse(show(set), self.allowed)),
            None => self.variable(parse),
        }
    }

    fn variable<U>(&self, parse: impl FnOnce(&str) -> Option<U>) -> Result<Option<U>, ConfigError> {
        let Some(value) = self.vars.0.get(self.variable) else { return Ok(None) };
        let Some(text) = value.to_str() else {
            return Err(self.refuse(value.to_string_lossy(), ConfigError::UTF8));
        };
        match parse(text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.refuse(text, self.allowed)),
        }
    }

    fn refuse(&self, value: impl Into<String>, allowed: &'static str) -> ConfigError {
        let from_env = self.set.is_none() && self.vars.0.contains_key(self.variable);
        ConfigError::new(self.option, from_env.then_some(self.variable), value, allowed)
    }
}

impl Given<'_, String> {
    /// Text that is parsed, the builder's too.
    pub(super) fn parse<U>(
        self,
        parse: impl Fn(&str) -> Option<U>,
    ) -> Result<Option<U>, ConfigError> {
        match &self.set {
            Some(text) => {
                parse(text).map(Some).ok_or_else(|| self.refuse(text.as_str(), self.allowed))
            }
            None => self.variable(parse),
        }
    }
}

impl Given<'_, Duration> {
    /// A duration, of whole milliseconds in the variable.
    pub(super) fn duration(self, default: u64) -> Result<Duration, ConfigError> {
        self.checked(default)
    }

    /// A duration that is not shorter than `reconnect_min`.
    pub(super) fn reconnect_max(
        self,
        default: u64,
        reconnect_min: Duration,
    ) -> Result<Duration, ConfigError> {
        let duration = self.checked(default)?;
        if duration < reconnect_min {
            return Err(self.refuse(format!("{duration:?}"), "no less than `reconnect_min`"));
        }
        Ok(duration)
    }

    fn checked(&self, default: u64) -> Result<Duration, ConfigError> {
        let within = |duration: &Duration| !duration.is_zero() && *duration <= LONGEST;
        let show = |duration: &Duration| format!("{duration:?}");
        let found = self.value(within, show, |text| {
            text.parse().ok().map(Duration::from_millis).filter(within)
        })?;
        Ok(found.unwrap_or(Duration::from_millis(default)))
    }
}

impl Given<'_, u16> {
    pub(super) fn port(self, default: u16) -> Result<u16, ConfigError> {
        let is_port = |port: &u16| *port != 0;
        let found =
            self.value(is_port, u16::to_string, |text| text.parse().ok().filter(is_port))?;
        Ok(found.unwrap_or(default))
    }
}

impl Given<'_, bool> {
    pub(super) fn flag(self, default: bool) -> Result<bool, ConfigError> {
        let found = self.value(
            |_| true,
            bool::to_string,
            |text| match text {
                "1" | "true" => Some(true),
                "0" | "false" => Some(false),
                _ => None,
            },
        )?;
        Ok(found.unwrap_or(default))
    }
}

impl Given<'_, Detectors> {
    pub(super) fn detectors(self) -> Result<Detectors, ConfigError> {
        let some = |detectors: &Detectors| *detectors != Detectors::NONE;
        let found = self.value(some, |_| "none".to_owned(), detector_list)?;
        Ok(found.unwrap_or_default())
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
