//! The scenarios, run one after the other.

mod basics;
mod failover;
mod handoff;
mod killed;
mod support;
mod transactions;

use std::time::Instant;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::problem::Problem;
use crate::report::{Report, Verdict};
use crate::scenario::Scenario;

/// Runs the requested scenarios. A failed one does not stop the others.
pub(crate) async fn run_all(cluster: &Cluster, arguments: &Arguments) -> Report {
    let mut report = Report::default();
    let wanted =
        |scenario: &Scenario| arguments.only.is_empty() || arguments.only.contains(scenario);
    for scenario in Scenario::ALL.into_iter().filter(wanted) {
        let started = Instant::now();
        let verdict = match &arguments.no_failover {
            Some(reason) if scenario.needs_failover() => Verdict::Skipped(reason.clone()),
            _ => match run(scenario, cluster, arguments).await {
                Ok(seen) => Verdict::Passed(seen),
                Err(problem) => Verdict::Failed(problem.to_string()),
            },
        };
        report.add(scenario, started.elapsed(), verdict);
    }
    report
}

async fn run(
    scenario: Scenario,
    cluster: &Cluster,
    arguments: &Arguments,
) -> Result<String, Problem> {
    match scenario {
        Scenario::E1 => basics::status(cluster).await,
        Scenario::E2 => basics::write_on_the_primary(cluster).await,
        Scenario::E3 => basics::write_on_the_replica(cluster).await,
        Scenario::E4 => failover::the_primary_stops(cluster).await,
        Scenario::E5 => failover::the_old_primary_returns(cluster).await,
        Scenario::E6 => transactions::from_the_replica(cluster).await,
        Scenario::E7 => killed::under_load(cluster, arguments.writers).await,
        Scenario::E8 => handoff::under_load(cluster, arguments.writers).await,
    }
}
