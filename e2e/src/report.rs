//! The results of the scenarios.

use std::fmt;
use std::time::Duration;

use crate::scenario::Scenario;

/// The result of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Passed, with a summary.
    Passed(String),
    /// Failed, with the error.
    Failed(String),
    /// Skipped, with the reason.
    Skipped(String),
}

/// The results of all scenarios. Displayed as the counts at the end.
#[derive(Debug, Default)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

impl Report {
    /// Adds a verdict, and prints it at once: some scenarios take half a minute.
    pub(crate) fn add(&mut self, scenario: Scenario, took: Duration, verdict: Verdict) {
        let title = scenario.title();
        let seconds = took.as_secs_f64();
        match &verdict {
            Verdict::Passed(seen) => {
                println!("{scenario} passed in {seconds:.1} s: {title}: {seen}")
            }
            Verdict::Failed(problem) => {
                println!("{scenario} FAILED after {seconds:.1} s: {title}: {problem}")
            }
            Verdict::Skipped(reason) => println!("{scenario} skipped: {title}: {reason}"),
        }
        self.verdicts.push(verdict);
    }

    /// Whether at least one scenario ran, and none failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let [passed, failed, _] = self.counts();
        passed > 0 && failed == 0
    }

    fn counts(&self) -> [usize; 3] {
        let count =
            |of: fn(&Verdict) -> bool| self.verdicts.iter().filter(|verdict| of(verdict)).count();
        [
            count(|verdict| matches!(verdict, Verdict::Passed(_))),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, failed, skipped] = self.counts();
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_any_scenario_is_not_good() {
        let mut report = Report::default();
        assert!(!report.is_good());
        report.add(Scenario::E4, Duration::ZERO, Verdict::Skipped("why".into()));
        assert!(!report.is_good());
        report.add(Scenario::E1, Duration::ZERO, Verdict::Passed("x".into()));
        assert!(report.is_good());
        report.add(Scenario::E2, Duration::ZERO, Verdict::Failed("x".into()));
        assert!(!report.is_good());
        assert_eq!(report.to_string(), "1 passed, 1 failed, 1 skipped\n");
    }
}
