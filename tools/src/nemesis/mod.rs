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
mod options;
mod processes;
mod rest;
mod schedule;
mod store;
mod summary;
mod weakness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use litefs_examples::Problem;

use self::options::Options;

/// Attacks three nodes that all write, heals them, and tells what became of every write.
#[derive(Debug, Parser)]
#[command(name = "nemesis", args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
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
