//! Consistency: what a read on a replica must see.

mod watermark;

pub(crate) use watermark::{Mark, Marks, Watermark};

/// What a read on this node must see. Set on the handle, changed on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Every write that was acknowledged to this process, on whichever connection. The default.
    #[default]
    ReadYourWrites,
    /// The writes of this connection.
    Session,
    /// What the local file has. Never waits.
    Eventual,
    /// Every write acknowledged on any node before the read began. Each read asks the primary for
    /// its position.
    Strong,
}

/// What a read does when this node has not caught up within `read_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenBehind {
    /// Read on the primary instead. Outside of a transaction a SELECT runs there beside the writes,
    /// sees what is committed, and waits for no transaction; a transaction that begins with a read
    /// takes the write lock there. The default.
    #[default]
    ReadPrimary,
    /// Read what the local file has.
    ReadStale,
    /// Fail with [`Failure::Behind`](crate::Failure::Behind).
    Fail,
}

/// The text is none of the allowed names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {allowed}")]
pub struct UnknownName {
    given: String,
    allowed: &'static str,
}

impl std::str::FromStr for Consistency {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "read-your-writes" => Ok(Self::ReadYourWrites),
            "session" => Ok(Self::Session),
            "eventual" => Ok(Self::Eventual),
            "strong" => Ok(Self::Strong),
            given => Err(UnknownName {
                given: given.into(),
                allowed: "read-your-writes, session, eventual, strong",
            }),
        }
    }
}

impl std::str::FromStr for WhenBehind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "read-primary" => Ok(Self::ReadPrimary),
            "read-stale" => Ok(Self::ReadStale),
            "fail" => Ok(Self::Fail),
            given => {
                Err(UnknownName { given: given.into(), allowed: "read-primary, read-stale, fail" })
            }
        }
    }
}
