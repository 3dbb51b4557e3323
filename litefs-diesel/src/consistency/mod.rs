//! What a read on a replica may miss.

mod wait;
mod watermark;

pub(crate) use wait::{Visibility, make_visible};
pub(crate) use watermark::{Mark, Marks, Watermark};

/// What a read on this node must see. Set on the handle, changed on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Every write that this process has been told is done, whichever connection wrote it. The
    /// default.
    #[default]
    ReadYourWrites,
    /// The writes of this connection.
    Session,
    /// Whatever is there. Never waits.
    Eventual,
    /// Every write acknowledged anywhere before the read began. Each read asks the primary where it
    /// is.
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
    /// Read what is there.
    ReadStale,
    /// Fail with [`Failure::Behind`](crate::Failure::Behind).
    Fail,
}

/// The text is none of the names; it holds the allowed ones.
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
