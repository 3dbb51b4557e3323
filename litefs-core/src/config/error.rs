//! A configuration that cannot work.

/// An option with a value that cannot work.
///
/// The message names the option, the environment variable if the value came from one, the value and
/// what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option `{option}`{}: {value:?} is not allowed, expected {allowed}", from(*.variable))]
#[non_exhaustive]
pub struct ConfigError {
    /// The option, as its [`ConfigBuilder`](crate::ConfigBuilder) method is called.
    pub option: &'static str,
    /// The environment variable the value came from; `None` if the program set it.
    pub variable: Option<&'static str>,
    /// The refused value.
    pub value: String,
    /// What would have been accepted.
    pub allowed: &'static str,
}

impl ConfigError {
    /// What is [`allowed`](Self::allowed) where a variable is not even text.
    pub const UTF8: &'static str = "text that is valid UTF-8";

    /// For crates that add options of their own: the same error for all.
    #[must_use]
    pub fn new(
        option: &'static str,
        variable: Option<&'static str>,
        value: impl Into<String>,
        allowed: &'static str,
    ) -> Self {
        Self { option, variable, value: value.into(), allowed }
    }
}

fn from(variable: Option<&'static str>) -> String {
    variable.map(|name| format!(" (environment variable {name})")).unwrap_or_default()
}
