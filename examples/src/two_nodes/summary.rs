//! The summary that the program prints at the end.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::audit::Audit;
use super::cluster::NAMES;
use crate::app::Counters;
use crate::stats::median;

/// The number of printed examples of each kind of violation.
const EXAMPLES: usize = 5;

/// The fields of `GET /status` that the summary needs.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeFigures {
    counters: Counters,
}

/// The nodes' counters.
#[derive(Debug, Default)]
pub(super) struct Figures {
    nodes: Vec<Counters>,
    forwards: Vec<f64>,
}

impl Figures {
    pub(super) fn add(&mut self, node: NodeFigures) {
        self.nodes.push(node.counters);
    }

    /// Durations of forwarded writes in microseconds.
    pub(super) fn add_forwards(&mut self, micros: &[u32]) {
        self.forwards.extend(micros.iter().copied().map(f64::from));
    }

    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.nodes.iter().map(of).sum()
    }

    fn forward_p50_us(&self) -> u64 {
        median(&mut self.forwards.clone()) as u64
    }
}

/// The verdict.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) took: Duration,
    pub(super) promotion: Duration,
    pub(super) failovers: u64,
    pub(super) figures: Figures,
    pub(super) acknowledged: usize,
    pub(super) rows: usize,
    pub(super) same: bool,
    pub(super) violations: Vec<String>,
    pub(super) unknown: Vec<String>,
    pub(super) audit: Audit,
}

impl Summary {
    /// Whether no violation was found and every check was exercised.
    pub(super) fn is_good(&self) -> bool {
        let kept = self.violations.is_empty()
            && self.audit.lost == 0
            && self.audit.duplicated == 0
            && self.same;
        let tested = self.failovers > 0 && self.figures.sum(|node| node.forwarded) > 0;
        kept && tested
    }

    fn examples(f: &mut fmt::Formatter<'_>, title: &str, of: &[String]) -> fmt::Result {
        if of.is_empty() {
            return Ok(());
        }
        writeln!(f, "{title}, {} in all:", of.len())?;
        of.iter().take(EXAMPLES).try_for_each(|example| writeln!(f, "  {example}"))
    }

    fn fmt_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let per_second = self.requests as f64 / seconds;
        let promotion = self.promotion.as_secs_f64() * 1_000.0;
        writeln!(
            f,
            "{} requests to two nodes in {seconds:.1} s ({per_second:.0}/s); {} promoted half-way \
             in {promotion:.0} ms",
            self.requests, NAMES[1]
        )?;
        for (name, node) in NAMES.iter().zip(&self.figures.nodes) {
            writeln!(
                f,
                "{name}: {} writes here, {} forwarded; {} reads as replica, {} as primary, \
                 {} sent elsewhere",
                node.local_writes,
                node.forwarded,
                node.local_reads,
                node.primary_reads,
                node.remote_reads
            )?;
        }
        let same = if self.same { "the same on both nodes" } else { "NOT THE SAME on both nodes" };
        writeln!(f, "{} rows at the end, {same}; {} acknowledged", self.rows, self.acknowledged)?;
        writeln!(
            f,
            "{} responses \"not now\", retried; {} outcomes unknown",
            self.refused,
            self.unknown.len()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_head(f)?;
        Self::examples(f, "Reads that did not show an acknowledged write", &self.violations)?;
        Self::examples(f, "Unknown outcomes", &self.unknown)?;
        Self::examples(f, "Found at the end", &self.audit.details)?;
        writeln!(f)?;
        writeln!(f, "forwarded {}", self.figures.sum(|node| node.forwarded))?;
        writeln!(f, "local_reads {}", self.figures.sum(|node| node.local_reads))?;
        writeln!(f, "read_your_writes_violations {}", self.violations.len())?;
        writeln!(f, "lost {}", self.audit.lost)?;
        writeln!(f, "duplicated {}", self.audit.duplicated)?;
        writeln!(f, "failovers {}", self.failovers)?;
        writeln!(f, "forward_p50_us {}", self.figures.forward_p50_us())
    }
}

/// Commands to try while the nodes are left running.
pub(super) fn print_commands([a, b]: &[String; 2]) {
    println!("\nBoth nodes are running, until Ctrl-C. {} is the primary.", NAMES[1]);
    println!("  {}: {a}\n  {}: {b}\n", NAMES[0], NAMES[1]);
    println!("A GET on the replica that downloads and inserts, then finds it on the other node:");
    println!("  curl -i {a}/resources/JFK\n  curl -i {b}/resources/JFK");
    println!("Write on the replica, list, search:");
    let row = concat!(
        r#"{"name":"My airfield","city":"Hilo","state":"HI","country":"USA","#,
        r#""latitude":19.7,"longitude":-155.0}"#,
    );
    println!("  curl -X POST -H 'content-type: application/json' -d '{row}' {a}/resources");
    println!("  curl '{b}/resources?search=Hilo&limit=5'");
    println!("What each node has done:");
    println!("  curl {a}/status\n  curl {b}/status");
}
