//! What this node is in its cluster: [`Role`], and [`RoleStamp`] to notice that it changed.

use std::fmt;

use serde::Serialize;

use crate::{NodeName, Position};

/// What this node is to one LiteFS mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// There is no LiteFS here: the database is a plain file and everything runs locally.
    Standalone,
    /// This node holds the lease: SQLite may write here.
    Primary,
    /// Another node is the primary; SQLite must not write here.
    Replica {
        /// The node LiteFS names. It may be dead: LiteFS goes on naming a lost primary until its
        /// lease ends.
        primary: NodeName,
    },
    /// LiteFS is here, or was, but no source proves which node is the primary. Reads work, writes
    /// wait.
    Unknown,
}

impl Role {
    /// The role without the name of the primary.
    #[must_use]
    pub const fn kind(&self) -> RoleKind {
        match self {
            Self::Standalone => RoleKind::Standalone,
            Self::Primary => RoleKind::Primary,
            Self::Replica { .. } => RoleKind::Replica,
            Self::Unknown => RoleKind::Unknown,
        }
    }

    /// The other node that is primary, where one is known.
    #[must_use]
    pub const fn primary(&self) -> Option<&NodeName> {
        match self {
            Self::Replica { primary } => Some(primary),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica { primary } => write!(f, "replica of {primary}"),
            other => other.kind().fmt(f),
        }
    }
}

/// A [`Role`] without names: one of four, and `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleKind {
    /// See [`Role::Standalone`].
    Standalone,
    /// See [`Role::Primary`].
    Primary,
    /// See [`Role::Replica`].
    Replica,
    /// See [`Role::Unknown`].
    Unknown,
}

impl RoleKind {
    const ALL: [Self; 4] = [Self::Standalone, Self::Primary, Self::Replica, Self::Unknown];
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        })
    }
}

/// A role and how many roles came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleState {
    /// The role now.
    pub role: Role,
    /// One more at each change of `role`, a change of the primary's name included, and whenever the
    /// mount comes or goes without one; starts at 0.
    pub epoch: u64,
    /// Where the database was when this node became the primary, read before the role was
    /// published: later transactions are this primary's own. `None` in every other role, and where
    /// it could not be read.
    pub term_start: Option<Position>,
}

impl RoleState {
    /// A state without a known start of the term.
    #[must_use]
    pub const fn new(role: Role, epoch: u64) -> Self {
        Self { role, epoch, term_start: None }
    }

    /// The state in the form that is compared around a write.
    #[must_use]
    pub const fn stamp(&self) -> RoleStamp {
        RoleStamp { kind: self.role.kind(), epoch: self.epoch }
    }
}

/// A role's kind and epoch, taken in one atomic load.
///
/// Equal stamps before and after a piece of work mean that the role did not change in between, not
/// even away and back. A [`CommitGuard`](crate::CommitGuard) compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoleStamp {
    kind: RoleKind,
    epoch: u64,
}

impl RoleStamp {
    const KIND_BITS: u32 = 2;

    /// The kind of role at the time of the stamp.
    #[must_use]
    pub const fn kind(self) -> RoleKind {
        self.kind
    }

    /// The epoch at the time of the stamp; see [`RoleState::epoch`].
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// Whether this node was the primary.
    #[must_use]
    pub const fn is_primary(self) -> bool {
        matches!(self.kind, RoleKind::Primary)
    }

    /// Both halves in one word. The epoch keeps 62 bits: a change each nanosecond fills them in 146
    /// years.
    pub(crate) const fn pack(self) -> u64 {
        self.epoch << Self::KIND_BITS | self.kind as u64
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        let kind = RoleKind::ALL[(word & 0b11) as usize];
        Self { kind, epoch: word >> Self::KIND_BITS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_being_packed() {
        for kind in RoleKind::ALL {
            for epoch in [0, 1, 77, u64::MAX >> 2] {
                let stamp = RoleStamp { kind, epoch };
                assert_eq!(RoleStamp::unpack(stamp.pack()), stamp);
            }
        }
    }
}
