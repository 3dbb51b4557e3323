//! The name of a node as LiteFS reports it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What LiteFS calls a node: its `lease.hostname`, found in `.primary`, `/info` and `/events`.
///
/// A host name or address, with or without a port. Never empty, at most 255 bytes, free of
/// whitespace and control characters. Two names are the same node only if they are equal byte for
/// byte, as they are for LiteFS. Cloning is cheap.
///
/// ```
/// # use litefs_core::NodeName;
/// let name: NodeName = "[fd00::1]:4000".parse()?;
/// assert_eq!((name.host(), name.port()), ("fd00::1", Some(4000)));
/// # Ok::<(), litefs_core::NodeNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// Why a text cannot be a [`NodeName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeNameError {
    /// There is nothing in it.
    #[error("a node name must not be empty")]
    Empty,
    /// It is longer than [`NodeName::MAX_LEN`].
    #[error("a node name has at most 255 bytes, found {0}")]
    TooLong(usize),
    /// It holds whitespace or a control character.
    #[error("a node name has no whitespace and no control characters")]
    Character,
}

impl NodeName {
    /// The longest name accepted, in bytes: the longest host name of DNS.
    pub const MAX_LEN: usize = 255;

    /// The name without its port and without the brackets around an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.split().0
    }

    /// The port, if the name ends in one (`host:port`, `[v6]:port`).
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.split().1
    }

    /// `host:port`, with the name's own port or else `default_port`; IPv6 addresses are bracketed.
    #[must_use]
    pub fn address(&self, default_port: u16) -> String {
        let (host, port) = self.split();
        let port = port.unwrap_or(default_port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn split(&self) -> (&str, Option<u16>) {
        let name = &*self.0;
        if let Some((host, rest)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
        }
        match name.split_once(':') {
            // More than one colon without brackets is an IPv6 address, which has no port.
            Some((host, port)) if !host.is_empty() && !port.contains(':') => {
                port.parse().map_or((name, None), |port| (host, Some(port)))
            }
            _ => (name, None),
        }
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(NodeNameError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(NodeNameError::Character);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d14_a_name_may_carry_a_port() {
        let cases = [
            ("node-a", "node-a", None),
            ("node-a:4000", "node-a", Some(4000)),
            ("10.0.0.1:4000", "10.0.0.1", Some(4000)),
            ("[fd00::1]:4000", "fd00::1", Some(4000)),
            ("[fd00::1]", "fd00::1", None),
            ("fd00::1", "fd00::1", None),
            ("node-a:http", "node-a:http", None),
            (":4000", ":4000", None),
        ];
        for (text, host, port) in cases {
            let name: NodeName = text.parse().unwrap();
            assert_eq!((name.host(), name.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn an_address_takes_the_default_port_only_where_the_name_has_none() {
        let address = |text: &str| text.parse::<NodeName>().unwrap().address(20203);
        assert_eq!(address("node-a"), "node-a:20203");
        assert_eq!(address("node-a:1"), "node-a:1");
        assert_eq!(address("fd00::1"), "[fd00::1]:20203");
    }

    #[test]
    fn a_name_that_could_not_be_a_host_is_refused() {
        for text in ["", " ", "a b", "a\n", "a\0", "a\u{a0}b", &"x".repeat(256)] {
            assert!(text.parse::<NodeName>().is_err(), "{text:?} was accepted");
            assert!(serde_json::from_value::<NodeName>(text.into()).is_err());
        }
        assert!("x".repeat(255).parse::<NodeName>().is_ok());
    }
}
