//! The scenarios, by their numbers in the acceptance list.

mod basics;
mod failover;
mod handoff;
mod killed;
mod transactions;

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use crate::Problem;
use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Report, Verdict};

/// One of them.
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
    /// In the order in which they run: those that need quiet nodes before those that kill them.
    const ALL: [Self; 8] = [Self::E1, Self::E2, Self::E3, Self::E6, Self::E4, Self::E5, Self::E8, Self::E7];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::E1 => "status of both nodes",
            Self::E2 => "a write on the primary is seen on the replica",
            Self::E3 => "a write on the replica is seen on both, and there at once",
            Self::E4 => "the primary stops: the replica takes over",
            Self::E5 => "the old primary returns as a replica and forwards",
            Self::E6 => "transactions and migrations from the replica",
            Self::E7 => "load from both nodes while the primary is killed",
            Self::E8 => "handoff without a failed request",
        }
    }

    fn needs_failover(self) -> bool {
        matches!(self, Self::E4 | Self::E5 | Self::E7 | Self::E8)
    }

    async fn run(self, cluster: &Cluster, arguments: &Arguments) -> Result<String, Problem> {
        match self {
            Self::E1 => basics::status(cluster).await,
            Self::E2 => basics::write_on_the_primary(cluster).await,
            Self::E3 => basics::write_on_the_replica(cluster).await,
            Self::E4 => failover::the_primary_stops(cluster).await,
            Self::E5 => failover::the_old_primary_returns(cluster).await,
            Self::E6 => transactions::from_the_replica(cluster).await,
            Self::E7 => killed::under_load(cluster, arguments.writers).await,
            Self::E8 => handoff::under_load(cluster, arguments.writers).await,
        }
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
        Self::ALL.into_iter().find(named).ok_or_else(|| format!("there is no scenario {text}, only E1 to E8"))
    }
}

/// Runs those that were asked for, one after the other. A failed one does not keep the others from running.
pub(crate) async fn run_all(cluster: &Cluster, arguments: &Arguments) -> Report {
    let mut report = Report::default();
    let wanted = |scenario: &Scenario| arguments.only.is_empty() || arguments.only.contains(scenario);
    for scenario in Scenario::ALL.into_iter().filter(wanted) {
        let started = Instant::now();
        let verdict = match &arguments.no_failover {
            Some(reason) if scenario.needs_failover() => Verdict::Skipped(reason.clone()),
            _ => match scenario.run(cluster, arguments).await {
                Ok(seen) => Verdict::Passed(seen),
                Err(problem) => Verdict::Failed(problem.to_string()),
            },
        };
        report.add(scenario, started.elapsed(), verdict);
    }
    report
}

/// What must be so.
fn must(so: bool, otherwise: impl fmt::Display) -> Result<(), Problem> {
    if so { Ok(()) } else { Err(otherwise.to_string().into()) }
}

/// Keys of a scenario's rows, each used once in a run.
fn key(scenario: &str, number: usize) -> String {
    format!("{scenario}-{}-{number}", std::process::id())
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
