//! Three nodes under attack, and a checker of what became of every write.
//!
//! The program starts three *nodes* from its own binary, each a process with an embedded LiteFS
//! (played by `litefs-testkit`), a [`LiteFs`](litefs_diesel::LiteFs) handle and a pool of
//! connections. Clients append to lists and read them, on every node, and keep a history: when they
//! asked, what they were told and what they saw. Meanwhile a schedule of faults that the seed alone
//! decides is carried out: processes are killed and frozen, links cut, slowed and made mute,
//! replication delayed and stalled, primaries deposed with and without loss.
//!
//! In the end everything is healed, each node is read in full, and a pure function holds the
//! history against that: acknowledged appends are there once and in order, refused ones are not
//! there, no read missed what its node had been told is done or went back behind an earlier one,
//! and all nodes have the same. The exit status is 0 only then.
//!
//! With `--mount` the nodes run on the mounts of a real LiteFS, and suffer what needs no power over
//! it.
//!
//! `--weaken` breaks one promise on purpose, to see that the checker notices.

mod attack;
mod check;
mod client;
mod drive;
mod embedded;
mod fleet;
mod history;
mod losses;
mod mounts;
mod node;
mod processes;
mod rest;
mod schedule;
mod store;
mod summary;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use litefs_examples::Problem;

/// Attacks three nodes that all write, heals them, and tells what became of every write.
#[derive(Debug, Parser)]
#[command(name = "nemesis", args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Clone, Args)]
struct Options {
    /// What the schedule of faults and the clients' choices are made from.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How long the attack lasts.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Print the schedule, and each fault when it is carried out; write down the history even if it
    /// is good.
    #[arg(long)]
    verbose: bool,
    /// Break a promise on purpose; the run must fail then.
    #[arg(long)]
    weaken: Option<Weakness>,
    /// Attack nodes of a real LiteFS instead, each given as <DIR>=<URL>: where it is mounted, and
    /// LiteFS's HTTP address. At least two, all of one cluster, on this machine. The run leaves a
    /// database of its own there.
    #[arg(long = "mount", value_name = "DIR=URL")]
    mounts: Vec<mounts::Mount>,
}

impl Options {
    /// How many nodes there are.
    fn nodes(&self) -> usize {
        if self.mounts.is_empty() { fleet::NAMES.len() } else { self.mounts.len() }
    }
}

/// A promise broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weakness {
    /// No outcomes are kept, and clients repeat writes whose outcome is unknown: some will be there
    /// twice.
    RetryUnknown,
    /// Nodes take SQLite's word for a commit, and LiteFS drops many: some writes will be gone
    /// without a report.
    Proof,
    /// Nodes read whatever is there, while the checker goes on demanding what they wrote: some
    /// reads will be stale.
    Eventual,
}

/// The other processes. Started by the program itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Node(node::Arguments),
}

/// Runs the program, or the part of it that the arguments name.
///
/// # Errors
/// Whatever kept it from coming to a verdict: a process that did not start, a cluster that did not
/// heal.
pub fn run(arguments: Arguments) -> Result<ExitCode, Problem> {
    match arguments.part {
        None => drive::run(&arguments.options),
        Some(Part::Node(arguments)) => node::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
