//! The summary that the program prints at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::check::{Verdict, Violation};
use super::history::{History, Outcome};

/// The number of reasons for refusals and unknown outcomes that are printed, the most frequent
/// first.
const REASONS: usize = 12;

/// The verdict and its figures.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) history: &'a History,
    pub(super) verdict: &'a Verdict,
    pub(super) took: Duration,
    pub(super) faults: usize,
}

impl Summary<'_> {
    fn ops(&self) -> usize {
        self.history.records.len()
    }

    /// Operations that append, by their outcome.
    fn appends(&self, of: fn(&Outcome) -> bool) -> usize {
        let appends = |record: &&super::history::Record| !record.op.appends().is_empty();
        self.history.records.iter().filter(appends).filter(|record| of(&record.outcome)).count()
    }

    fn fmt_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rows = self.history.finals.first().map_or(0, |(_, rows)| rows.len());
        writeln!(
            f,
            "{} operations on {} nodes in {seconds:.1} s ({:.0}/s) under {} faults; {rows} rows \
             at the end, {} acknowledged ones lost to failovers",
            self.ops(),
            self.history.finals.len(),
            self.ops() as f64 / seconds,
            self.faults,
            self.verdict.lost_reported + self.verdict.lost_excused,
        )?;
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for record in &self.history.records {
            if let Outcome::Refused { why } | Outcome::Unknown { why } = &record.outcome {
                *reasons.entry(kind(why)).or_default() += 1;
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
            .iter()
            .take(REASONS)
            .try_for_each(|(why, count)| writeln!(f, "{count:6} x {why}"))?;
        self.verdict.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// A reason without its variable parts: positions, addresses, ids.
fn kind(why: &str) -> String {
    let mut words = why
        .split(' ')
        .map(|word| if word.contains(|c: char| c.is_ascii_digit()) { ".." } else { word });
    let mut kind: String = words.by_ref().take(16).collect::<Vec<_>>().join(" ");
    if words.next().is_some() {
        kind.push_str(" ..");
    }
    kind
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_head(f)?;
        writeln!(f)?;
        writeln!(f, "ops {}", self.ops())?;
        writeln!(f, "acked {}", self.appends(|outcome| matches!(outcome, Outcome::Done { .. })))?;
        writeln!(
            f,
            "refused {}",
            self.appends(|outcome| matches!(outcome, Outcome::Refused { .. }))
        )?;
        writeln!(
            f,
            "unknown {}",
            self.appends(|outcome| matches!(outcome, Outcome::Unknown { .. }))
        )?;
        writeln!(f, "lost_reported {}", self.verdict.lost_reported)?;
        writeln!(f, "lost_excused {}", self.verdict.lost_excused)?;
        for wrong in Violation::ALL {
            writeln!(f, "{} {}", wrong.name(), self.verdict.count(wrong))?;
        }
        writeln!(f, "failovers {}", self.history.takeovers.len())
    }
}
