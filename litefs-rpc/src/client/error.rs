//! Why a call failed, and what became of its request.

use std::time::Duration;

use crate::handshake::HandshakeError;
use crate::wire::ServerError;

/// What became of a request whose call failed. It decides what the caller may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never left this node.
    NotSent,
    /// A server received it and did not apply it.
    NotApplied,
    /// It may or may not be applied.
    Unknown,
}

/// Why a call to a server failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection could be made.
    #[error("the primary at {address} cannot be reached: {reason}")]
    Unreachable {
        /// The address of the server.
        address: String,
        /// The error of the network.
        reason: String,
    },
    /// The server refused the handshake; a retry will not help.
    #[error("the server at {address} refused this node: {error}")]
    Handshake {
        /// Which server.
        address: String,
        /// Why.
        error: HandshakeError,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Refused(#[from] ServerError),
    /// The connection broke while the request was in progress.
    #[error("the connection to {address} was lost before the answer came: {reason}")]
    Lost {
        /// Which server.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer came in time.
    #[error("{address} did not answer: waited {after:.1?} in all")]
    Deadline {
        /// Which server.
        address: String,
        /// How long the caller has waited, earlier attempts included.
        after: Duration,
    },
    /// The message could not be encoded, for example because it is larger than a frame.
    #[error("the request cannot be sent: {0}")]
    Encoding(String),
}

impl CallError {
    /// What became of the request.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            CallError::Unreachable { .. }
            | CallError::Handshake { .. }
            | CallError::Encoding(_) => Fate::NotSent,
            CallError::Refused(ServerError::Unconfirmed { .. } | ServerError::Interrupted) => {
                Fate::Unknown
            }
            CallError::Refused(_) => Fate::NotApplied,
            CallError::Lost { .. } | CallError::Deadline { .. } => Fate::Unknown,
        }
    }
}
