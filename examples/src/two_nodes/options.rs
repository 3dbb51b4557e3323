//! The command line's options.

use clap::Args;

/// Options of a run.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Options {
    /// The approximate number of requests to send.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(super) requests: u64,
    /// The seed of the clients' choices.
    #[arg(long, default_value_t = 42)]
    pub(super) seed: u64,
    /// Leave both nodes running at the end, until Ctrl-C.
    #[arg(long)]
    pub(super) keep: bool,
}
