//! The versions of the protocol that this build speaks.

/// A version of the protocol: the messages and their encoding.
///
/// The handshake settles on the highest version that both sides speak, and that version decides how
/// messages are encoded on the connection. So a node one version behind keeps working during a
/// rolling deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// Length-delimited frames of bincode 1 with integers of variable length.
    V1,
    /// As version 1, with [`Command::Transaction`](super::Command::Transaction),
    /// [`Command::Call`](super::Command::Call), and the outputs and errors that only answer them.
    V2,
}

impl ProtocolVersion {
    /// The oldest version that this build speaks.
    pub const OLDEST: Self = Self::V1;
    /// The newest version that this build speaks.
    pub const NEWEST: Self = Self::V2;

    /// The number that travels in the handshake.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The version of that number, if this build speaks it.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// The highest version that both sides speak, where the other side speaks the versions from
    /// `oldest` to `newest`.
    #[must_use]
    pub fn common(oldest: u16, newest: u16) -> Option<Self> {
        let number = newest.min(Self::NEWEST.number());
        if number < oldest { None } else { Self::from_number(number) }
    }
}

impl std::fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken() {
        let (v1, v2) = (Some(ProtocolVersion::V1), Some(ProtocolVersion::V2));
        for (oldest, newest, common) in [
            (1, 1, v1),
            (0, 1, v1),
            (1, 2, v2),
            (1, 9, v2),
            (2, 9, v2),
            (0, 0, None),
            (3, 9, None),
            (9, 1, None),
        ] {
            assert_eq!(ProtocolVersion::common(oldest, newest), common, "{oldest} to {newest}");
        }
        for number in 0..9 {
            let version = ProtocolVersion::from_number(number);
            assert!(version.is_none_or(|version| version.number() == number));
        }
    }
}
