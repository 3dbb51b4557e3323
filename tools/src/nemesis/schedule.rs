//! The times and kinds of faults, determined by the seed alone.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The load runs without faults for this long at first.
const QUIET: Duration = Duration::from_millis(500);
/// Replies are lost at this time in every run, so that no run is without unknown outcomes.
const FIRST: Step = Step { at: QUIET, lasts: Duration::from_millis(600), fault: Fault::CutReplies };

/// The target of a fault. The node that is the primary at that time depends on earlier faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Primary,
    /// One of the two other nodes.
    Replica(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary"),
            Self::Replica(which) => write!(f, "replica {which}"),
        }
    }
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of the process, which is started again at the end. With a successor, that replica
    /// becomes the primary at once with the data it has; without, a killed primary returns as the
    /// primary.
    Kill { node: Target, successor: Option<usize> },
    /// SIGSTOP, and SIGCONT at the end. With a successor, that replica becomes the primary
    /// meanwhile, and the old primary learns of it only `late` after SIGCONT.
    Pause { node: Target, successor: Option<usize>, late: Duration },
    /// An orderly failover without loss.
    Promote { successor: usize },
    /// A failover that loses the last transactions.
    LoseTail { successor: usize, lost: u64 },
    /// A handoff through the library.
    HandOff,
    /// No node is primary for a while; then the successor is, unless it has died meanwhile.
    LoseRole { successor: Target },
    /// A commit that SQLite reports as done and LiteFS does not capture; LiteFS then dies.
    DropCommit,
    /// Replication to a replica is stalled.
    Stall { replica: usize },
    /// Replication to a replica is delayed.
    Delay { replica: usize, by: Duration },
    /// The replication link between a replica and the primary is cut, in both directions.
    Cut { replica: usize },
    /// Every commit takes longer.
    SlowDisk { by: Duration },
    /// Forwarded requests to the primary do not arrive.
    CutRequests,
    /// Forwarded requests arrive, their replies do not; then the connections break, and the replies
    /// are lost.
    CutReplies,
    /// Requests and replies are delayed.
    SlowLink { by: Duration },
    /// All connections to the primary's server break.
    BreakLink,
    /// A node receives no more events from its own LiteFS.
    SilentEvents { node: Target },
}

impl Fault {
    /// The target.
    pub(super) fn target(self) -> Target {
        match self {
            Self::Kill { node, .. } | Self::Pause { node, .. } | Self::SilentEvents { node } => {
                node
            }
            Self::Promote { successor } | Self::LoseTail { successor, .. } => {
                Target::Replica(successor)
            }
            Self::Stall { replica } | Self::Delay { replica, .. } | Self::Cut { replica } => {
                Target::Replica(replica)
            }
            Self::LoseRole { .. }
            | Self::HandOff
            | Self::DropCommit
            | Self::SlowDisk { .. }
            | Self::CutRequests
            | Self::CutReplies
            | Self::SlowLink { .. }
            | Self::BreakLink => Target::Primary,
        }
    }

    /// Whether it changes roles or ends processes. If such a fault fails, the cluster may be left
    /// without a primary.
    pub(super) fn concerns_roles(self) -> bool {
        matches!(
            self,
            Self::Kill { .. }
                | Self::Pause { .. }
                | Self::Promote { .. }
                | Self::LoseTail { .. }
                | Self::HandOff
                | Self::LoseRole { .. }
                | Self::DropCommit
        )
    }
}

/// The kind of cluster, which determines the possible faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultSet {
    /// All faults of the embedded cluster.
    Everything,
    /// LiteFS drops many commits.
    DroppedCommits,
    /// Faults of processes beside a real LiteFS.
    Processes,
}

/// A fault with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// When it begins, from the start of the run.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.3} s  for {:4} ms  ", self.at.as_secs_f64(), self.lasts.as_millis())?;
        match self.fault {
            Fault::Kill { node, successor: None } => write!(f, "kill {node}"),
            Fault::Kill { node, successor: Some(successor) } => {
                write!(f, "kill {node}, replica {successor} takes over")
            }
            Fault::Pause { node, successor: None, .. } => write!(f, "freeze {node}"),
            Fault::Pause { node, successor: Some(successor), late } => {
                write!(
                    f,
                    "freeze {node}, replica {successor} takes over, which it learns {} ms late",
                    late.as_millis()
                )
            }
            Fault::Promote { successor } => write!(f, "promote replica {successor}"),
            Fault::HandOff => f.write_str("hand off"),
            Fault::LoseTail { successor, lost } => {
                write!(f, "promote replica {successor}, losing {lost} transactions")
            }
            Fault::LoseRole { successor } => write!(f, "no primary, then {successor} again"),
            Fault::DropCommit => f.write_str("drop a commit"),
            Fault::Stall { replica } => write!(f, "stall replication to replica {replica}"),
            Fault::Delay { replica, by } => {
                write!(f, "delay replication to replica {replica} by {} ms", by.as_millis())
            }
            Fault::Cut { replica } => {
                write!(f, "cut replication between the primary and replica {replica}")
            }
            Fault::SlowDisk { by } => write!(f, "commits take {} ms longer", by.as_millis()),
            Fault::CutRequests => f.write_str("cut requests to the primary"),
            Fault::CutReplies => f.write_str("cut the primary's replies"),
            Fault::SlowLink { by } => {
                write!(f, "delay requests and replies by {} ms", by.as_millis())
            }
            Fault::BreakLink => f.write_str("break connections to the primary"),
            Fault::SilentEvents { node } => write!(f, "no events for {node}"),
        }
    }
}

/// The faults of a run, in the order in which they begin.
///
/// There are two concurrent sequences: role changes and kills of processes, one at a time; and
/// faults of links, replication and disks, which overlap with them.
pub(super) fn schedule(seed: u64, length: Duration, fault_set: FaultSet) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (role_fault, link_fault): (Choice, Choice) = match fault_set {
        FaultSet::Everything => (role_fault, link_fault),
        FaultSet::DroppedCommits => return dropped_commits(&mut rng, length),
        FaultSet::Processes => (role_fault_beside, link_fault_beside),
    };
    let mut steps = vec![FIRST];
    let from = FIRST.at + FIRST.lasts + QUIET;
    steps.extend(sequence(&mut rng, from..length, 300..1_200, |rng| {
        let lasts = rng.random_range(200..1_200);
        (role_fault(rng), lasts)
    }));
    steps.extend(sequence(&mut rng, from..length, 100..900, |rng| {
        let lasts = rng.random_range(100..1_200);
        (link_fault(rng), lasts)
    }));
    steps.sort_by_key(|step| step.at);
    steps
}

type Choice = fn(&mut StdRng) -> Fault;

/// LiteFS drops many commits, and loses the lease in the middle of slow writes.
fn dropped_commits(rng: &mut StdRng, length: Duration) -> Vec<Step> {
    let mut steps = sequence(rng, QUIET..length, 50..150, |rng| {
        let drops = rng.random_bool(0.7);
        let fault =
            if drops { Fault::DropCommit } else { Fault::LoseRole { successor: Target::Primary } };
        (fault, rng.random_range(50..150))
    });
    let slow = Fault::SlowDisk { by: Duration::from_millis(10) };
    steps.push(Step { at: Duration::ZERO, lasts: length, fault: slow });
    steps.sort_by_key(|step| step.at);
    steps
}

fn sequence(
    rng: &mut StdRng,
    time: Range<Duration>,
    pause_ms: Range<u64>,
    fault: impl Fn(&mut StdRng) -> (Fault, u64),
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = time.start;
    while at < time.end {
        let (fault, lasts) = fault(rng);
        let lasts = Duration::from_millis(lasts);
        steps.push(Step { at, lasts, fault });
        at += lasts + Duration::from_millis(rng.random_range(pause_ms.clone()));
    }
    steps
}

fn role_fault(rng: &mut StdRng) -> Fault {
    let successor = rng.random_range(0..2);
    match rng.random_range(0..100) {
        0..20 => Fault::Kill { node: Target::Primary, successor: Some(successor) },
        20..28 => Fault::Kill { node: Target::Primary, successor: None },
        28..36 => Fault::Kill { node: Target::Replica(successor), successor: None },
        36..46 => {
            let late = Duration::from_millis(rng.random_range(0..100));
            Fault::Pause { node: Target::Primary, successor: Some(successor), late }
        }
        46..56 => {
            let node =
                if rng.random_bool(0.5) { Target::Primary } else { Target::Replica(successor) };
            Fault::Pause { node, successor: None, late: Duration::ZERO }
        }
        56..71 => Fault::Promote { successor },
        71..84 => Fault::LoseTail { successor, lost: rng.random_range(1..6) },
        84..92 => {
            let same = rng.random_bool(0.4);
            Fault::LoseRole {
                successor: if same { Target::Primary } else { Target::Replica(successor) },
            }
        }
        _ => Fault::DropCommit,
    }
}

fn role_fault_beside(rng: &mut StdRng) -> Fault {
    let successor = rng.random_range(0..2);
    let node = if rng.random_bool(0.5) { Target::Primary } else { Target::Replica(successor) };
    match rng.random_range(0..100) {
        0..25 => Fault::Kill { node, successor: None },
        25..45 => Fault::Pause { node, successor: None, late: Duration::ZERO },
        45..75 => Fault::Promote { successor },
        _ => Fault::HandOff,
    }
}

fn link_fault_beside(rng: &mut StdRng) -> Fault {
    match rng.random_range(0..100) {
        0..20 => Fault::CutRequests,
        20..50 => Fault::CutReplies,
        50..75 => Fault::SlowLink { by: Duration::from_millis(rng.random_range(1..40)) },
        _ => Fault::BreakLink,
    }
}

fn link_fault(rng: &mut StdRng) -> Fault {
    let replica = rng.random_range(0..2);
    let mut by = |most| Duration::from_millis(rng.random_range(1..most));
    let (delay, slow, disk) = (by(150), by(40), by(15));
    match rng.random_range(0..100) {
        0..14 => Fault::Stall { replica },
        14..34 => Fault::Delay { replica, by: delay },
        34..44 => Fault::Cut { replica },
        44..54 => Fault::SlowDisk { by: disk },
        54..62 => Fault::CutRequests,
        62..74 => Fault::CutReplies,
        74..82 => Fault::SlowLink { by: slow },
        82..92 => Fault::BreakLink,
        _ => {
            let node =
                if rng.random_bool(0.5) { Target::Primary } else { Target::Replica(replica) };
            Fault::SilentEvents { node }
        }
    }
}

#[cfg(test)]
mod tests;
