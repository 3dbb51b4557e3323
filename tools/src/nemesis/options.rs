//! The command line's options.

use clap::Args;

use super::fleet::NAMES;
use super::mounts::mount::Mount;
use super::weakness::Weakness;

/// Options of a run.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// What the schedule of faults and the clients' choices are made from.
    #[arg(long, default_value_t = 7)]
    pub(super) seed: u64,
    /// How long the attack lasts.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..))]
    pub(super) seconds: u64,
    /// Print the schedule, and each fault when it is carried out; write down the history even if it
    /// is good.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Break a promise on purpose; the run must fail then.
    #[arg(long)]
    pub(super) weaken: Option<Weakness>,
    /// Attack nodes of a real LiteFS instead, each given as <DIR>=<URL>: where it is mounted, and
    /// LiteFS's HTTP address. At least two, all of one cluster, on this machine. The run leaves a
    /// database of its own there.
    #[arg(long = "mount", value_name = "DIR=URL")]
    pub(super) mounts: Vec<Mount>,
}

impl Options {
    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        if self.mounts.is_empty() { NAMES.len() } else { self.mounts.len() }
    }
}
