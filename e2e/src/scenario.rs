//! The scenarios: their numbers in the acceptance list, and their subjects.

use std::fmt;
use std::str::FromStr;

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    E1,
    E2,
    E3,
    E4,
    E5,
    E6,
    E7,
    E8,
}

impl Scenario {
    /// In the order in which they run: scenarios that need running nodes come before those that
    /// kill them.
    pub(crate) const ALL: [Self; 8] =
        [Self::E1, Self::E2, Self::E3, Self::E6, Self::E4, Self::E5, Self::E8, Self::E7];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::E1 => "status of both nodes",
            Self::E2 => "a write on the primary is visible on the replica",
            Self::E3 => "a write on the replica is visible on both, and on the replica at once",
            Self::E4 => "the primary stops: the replica takes over",
            Self::E5 => "the old primary returns as a replica and forwards",
            Self::E6 => "transactions and migrations from the replica",
            Self::E7 => "load from both nodes while the primary is killed",
            Self::E8 => "handoff without a failed request",
        }
    }

    pub(crate) fn needs_failover(self) -> bool {
        matches!(self, Self::E4 | Self::E5 | Self::E7 | Self::E8)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |scenario: &Self| scenario.to_string().eq_ignore_ascii_case(text);
        Self::ALL
            .into_iter()
            .find(named)
            .ok_or_else(|| format!("there is no scenario {text}, only E1 to E8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_number() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.to_string().to_lowercase().parse(), Ok(scenario));
        }
        assert!("E9".parse::<Scenario>().is_err());
    }
}
