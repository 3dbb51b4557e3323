//! Options from the environment.

use std::ffi::OsString;
use std::time::Duration;

use litefs_core::ConfigError;

use super::StartError;

/// The environment, as far as it is ours.
pub(super) struct Vars<'a>(pub(super) &'a [(String, OsString)]);

impl Vars<'_> {
    /// The variable's text. An error does not show what it holds, which may be secret.
    pub(super) fn get(
        &self,
        option: &'static str,
        variable: &'static str,
    ) -> Result<Option<&str>, StartError> {
        let value =
            self.0.iter().find(|(known, _)| known == variable).map(|(_, value)| value.to_str());
        match value {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text)),
            Some(None) => {
                Err(refused(option, Some(variable), "(not shown)", "", ConfigError::UTF8))
            }
        }
    }

    /// The builder's value, else the variable's.
    pub(super) fn or<T: std::str::FromStr>(
        &self,
        option: &'static str,
        variable: &'static str,
        set: Option<T>,
        allowed: &'static str,
    ) -> Result<Option<T>, StartError> {
        if set.is_some() {
            return Ok(set);
        }
        let Some(text) = self.get(option, variable)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| refused(option, Some(variable), text, "", allowed))
    }

    pub(super) fn flag(
        &self,
        option: &'static str,
        variable: &'static str,
        set: Option<bool>,
    ) -> Result<Option<bool>, StartError> {
        if set.is_some() {
            return Ok(set);
        }
        match self.get(option, variable)? {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(other) => Err(refused(option, Some(variable), other, "", "1, 0, true or false")),
        }
    }

    pub(super) fn time(
        &self,
        option: &'static str,
        variable: &'static str,
        set: Option<Duration>,
        default: Duration,
    ) -> Result<Duration, StartError> {
        let allowed = "a time of at least 1 ms";
        let from_builder = set.is_some();
        let value = match set {
            Some(time) => time,
            None => self
                .or::<u64>(option, variable, None, "a whole number of milliseconds, at least 1")?
                .map_or(default, Duration::from_millis),
        };
        if value < Duration::from_millis(1) {
            let variable = (!from_builder).then_some(variable);
            return Err(refused(option, variable, &format!("{value:?}"), "", allowed));
        }
        Ok(value)
    }
}

/// An address that other nodes can connect to.
pub(super) fn advertise(
    vars: &Vars<'_>,
    set: Option<String>,
) -> Result<Option<String>, StartError> {
    let address = vars.or::<String>("advertise", "LITEFS_RPC_ADVERTISE", set, "text")?;
    let good = |address: &str| match address.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0),
        None => false,
    };
    match address {
        Some(address) if !good(&address) => Err(refused(
            "advertise",
            None,
            &address,
            "",
            "host:port, as the other nodes reach this one",
        )),
        address => Ok(address),
    }
}

/// An option with a value that cannot work.
pub(super) fn refused(
    option: &'static str,
    variable: Option<&'static str>,
    value: &str,
    why: &str,
    allowed: &'static str,
) -> StartError {
    let value = if why.is_empty() { value.to_owned() } else { format!("{value}: {why}") };
    StartError::Config(ConfigError::new(option, variable, value, allowed))
}
