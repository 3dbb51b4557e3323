//! The command line's options.

use clap::Args;

use super::fleet::NAMES;
use super::mounts::mount::Mount;
use super::weakness::Weakness;

/// Options of a run.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// The seed of the schedule of faults and of the clients' choices.
    #[arg(long, default_value_t = 7)]
    pub(super) seed: u64,
    /// The duration of the attack.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..))]
    pub(super) seconds: u64,
    /// Print the schedule, and each fault when it begins; write the history to a file even if no
    /// violation is found.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Break a promise on purpose; the run must then fail.
    #[arg(long)]
    pub(super) weaken: Option<Weakness>,
    /// Run on nodes of a real LiteFS, each given as <DIR>=<URL>: its mount and LiteFS's HTTP
    /// address. At least two, all of one cluster, on this machine. The run leaves a database there.
    #[arg(long = "mount", value_name = "DIR=URL")]
    pub(super) mounts: Vec<Mount>,
}

impl Options {
    /// The number of nodes.
    pub(super) fn nodes(&self) -> usize {
        if self.mounts.is_empty() { NAMES.len() } else { self.mounts.len() }
    }
}
