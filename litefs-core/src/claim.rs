//! What a source may say about which node is the primary.

use crate::{NodeName, Position};

/// What one source says about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// This node is the primary.
    Primary,
    /// This node is not the primary; that one is.
    Replica(NodeName),
    /// This node is not the primary, and no primary is known.
    NoPrimary,
}

impl Claim {
    /// The claim in LiteFS's words: `isPrimary`, and a host name that may be absent or empty.
    ///
    /// # Errors
    ///
    /// [`NodeNameError`](crate::NodeNameError) if the host name cannot be one.
    pub fn from_litefs(is_primary: bool, hostname: &str) -> Result<Self, crate::NodeNameError> {
        match (is_primary, hostname) {
            (true, _) => Ok(Self::Primary),
            (false, "") => Ok(Self::NoPrimary),
            (false, hostname) => Ok(Self::Replica(hostname.parse()?)),
        }
    }
}

/// Whether an answer of `/info` comes from the LiteFS that serves this mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It names the mount itself as its path.
    ThisMount,
    /// It keeps its databases where this one is not.
    OtherMount,
    /// Unknown. If LiteFS's files are in the mount, the answer counts.
    Unclear,
}

/// An answer of `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InfoAnswer {
    /// What it says about this node.
    pub claim: Claim,
    /// This node's own name, which LiteFS reports only while it is the primary.
    pub own_name: Option<NodeName>,
    /// Whose answer it is.
    pub owner: Owner,
}

impl InfoAnswer {
    /// An answer with these parts.
    #[must_use]
    pub const fn new(claim: Claim, own_name: Option<NodeName>, owner: Owner) -> Self {
        Self { claim, own_name, owner }
    }
}

/// One thing a detector, or code outside this crate, has learned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observation {
    /// `.primary` was read: the node it names, or `None` if it is absent or does not make sense.
    PrimaryFile(Option<NodeName>),
    /// The event stream says so; it stands until it says otherwise or is lost.
    Stream(Claim),
    /// The event stream is lost, and with it what it said.
    StreamLost,
    /// `/info` has answered.
    Info(InfoAnswer),
    /// `/info` could not be reached; what it said before no longer counts.
    InfoUnreachable,
    /// LiteFS rejected a write to the tracking table: proof that this node is not the primary.
    RowWriteRejected,
    /// A transaction was applied to a database.
    Transaction {
        /// The database's file name.
        database: String,
        /// Its position afterwards.
        position: Position,
    },
    /// The node taken for the primary cannot be reached. Does not change the role; `/info` is
    /// asked.
    PeerUnreachable {
        /// That node.
        node: NodeName,
    },
    /// The node taken for the primary says it is not. Does not change the role; `/info` is asked.
    PeerNotPrimary {
        /// That node.
        node: NodeName,
        /// Whom it takes for the primary.
        hint: Option<NodeName>,
    },
}
