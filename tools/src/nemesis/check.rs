//! The checker, a pure function: compares the clients' results with the content of the nodes.

mod appends;
mod lists;
mod reads;
#[cfg(test)]
mod tests;

use self::lists::Lists;
use super::history::History;
use super::losses::LossReports;

/// The number of findings of each kind that are described; all are counted.
const EXAMPLES: usize = 5;

/// Kinds of violations, counted in appends or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    /// Acknowledged, missing, and not reported as lost.
    LostUnreported,
    /// Present, although it was reported as lost.
    FalselyReported,
    /// Present more than once.
    Duplicated,
    /// A read that missed an append that its node had acknowledged, or elements that its client had
    /// seen before.
    StaleRead,
    /// Present, or seen, although it was refused as certainly not applied.
    RefusedApplied,
    /// Stored, or read, although no client appended it.
    Invented,
    /// Of the appends of one batch some are present and some are not.
    Torn,
    /// Not in the order of the acknowledgements of one client; seen in another order than stored;
    /// or appended by a transaction to another list than it had read.
    Disordered,
    /// Two nodes differ at the end.
    Differing,
    /// An operation that panicked or did not end.
    Broken,
}

impl Violation {
    /// All kinds, in the order of reporting.
    pub(super) const ALL: [Self; 10] = [
        Self::LostUnreported,
        Self::FalselyReported,
        Self::Duplicated,
        Self::StaleRead,
        Self::RefusedApplied,
        Self::Invented,
        Self::Torn,
        Self::Disordered,
        Self::Differing,
        Self::Broken,
    ];

    /// Its name in the summary.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LostUnreported => "lost_unreported",
            Self::FalselyReported => "falsely_reported",
            Self::Duplicated => "duplicated",
            Self::StaleRead => "stale_reads",
            Self::RefusedApplied => "refused_applied",
            Self::Invented => "invented",
            Self::Torn => "torn",
            Self::Disordered => "disordered",
            Self::Differing => "nodes_differing",
            Self::Broken => "panics_and_hangs",
        }
    }
}

/// The findings of the checker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    counts: [u64; Violation::ALL.len()],
    /// Acknowledged appends that are missing and were reported as lost.
    pub(super) lost_reported: u64,
    /// Acknowledged appends that are missing, whose process could not report the loss any more.
    pub(super) lost_excused: u64,
    /// Descriptions of the first few findings of each kind.
    pub(super) examples: Vec<String>,
}

impl Verdict {
    /// How often this kind was found.
    pub(super) fn count(&self, wrong: Violation) -> u64 {
        self.counts[wrong as usize]
    }

    /// Whether no violation was found.
    pub(super) fn is_good(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    fn find(&mut self, wrong: Violation, example: impl FnOnce() -> String) {
        let count = &mut self.counts[wrong as usize];
        *count += 1;
        if *count <= EXAMPLES as u64 {
            self.examples.push(format!("{}: {}", wrong.name(), example()));
        }
    }
}

/// Checks a history.
pub(super) fn check(history: &History, losses: &dyn LossReports) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(((first, rows), others)) = history.finals.split_first() else { return verdict };
    for (name, other) in others.iter().filter(|(_, other)| other != rows) {
        let at = rows
            .iter()
            .zip(other)
            .position(|(one, other)| one != other)
            .unwrap_or(rows.len().min(other.len()));
        verdict.find(Violation::Differing, || {
            format!(
                "{first} has {} rows, {name} {}; they differ from {at} on",
                rows.len(),
                other.len()
            )
        });
    }
    let lists = Lists::of(rows);
    appends::check(&mut verdict, history, &lists, losses);
    reads::check(&mut verdict, history, &lists);
    verdict
}
