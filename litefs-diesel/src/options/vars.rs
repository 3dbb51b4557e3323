//! Options from the environment.

use std::time::Duration;

use litefs_core::ConfigError;

use crate::litefs::StartError;

/// The environment, as far as it is ours.
pub(super) struct Vars<'a>(pub(super) &'a [(String, String)]);

impl Vars<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The builder's value, else the variable's.
    pub(super) fn or<T: std::str::FromStr>(
        &self,
        option: &'static str,
        variable: &'static str,
        set: Option<T>,
        allowed: &'static str,
    ) -> Result<Option<T>, StartError> {
        match (set, self.get(variable)) {
            (Some(set), _) => Ok(Some(set)),
            (None, None) => Ok(None),
            (None, Some(text)) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(refused(option, Some(variable), text, "", allowed)),
            },
        }
    }

    pub(super) fn flag(
        &self,
        option: &'static str,
        variable: &'static str,
        set: Option<bool>,
    ) -> Result<Option<bool>, StartError> {
        match (set, self.get(variable)) {
            (Some(set), _) => Ok(Some(set)),
            (None, None) => Ok(None),
            (None, Some("1" | "true")) => Ok(Some(true)),
            (None, Some("0" | "false")) => Ok(Some(false)),
            (None, Some(other)) => Err(refused(option, Some(variable), other, "", "1, 0, true or false")),
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
pub(super) fn advertise(address: Option<String>) -> Result<Option<String>, StartError> {
    let good = |address: &str| match address.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0),
        None => false,
    };
    match address {
        Some(address) if !good(&address) => {
            Err(refused("advertise", None, &address, "", "host:port, as the other nodes reach this one"))
        }
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
