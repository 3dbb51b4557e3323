//! Three nodes under fault injection, and a checker of the outcome of every write.
//!
//! The program starts three *nodes* from its own binary, each a process with an embedded LiteFS
//! (`litefs-testkit`), a [`LiteFs`](litefs_diesel::LiteFs) handle and a pool of connections.
//! Clients on every node append to lists and read them, and record a history: the time of each
//! request, its result, and what they read. Meanwhile a schedule of faults, which is determined by
//! the seed alone, is executed: processes are killed and frozen, links are cut, slowed and
//! silenced, replication is delayed and stalled, primaries are replaced with and without loss.
//!
//! At the end all faults are healed, each node is read in full, and a pure function checks the
//! history: acknowledged appends are present once and in order, refused ones are absent, no read
//! missed an append that its node had acknowledged or went back behind an earlier read, and all
//! nodes have the same data. The exit status is 0 only then.
//!
//! With `--mount` the nodes run on the mounts of a real LiteFS, with the faults that need no
//! control over LiteFS.
//!
//! `--weaken` breaks one promise on purpose, to test the checker.

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

/// Injects faults into three nodes that all write, heals them, and checks the outcome of every
/// write.
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
/// Any error that prevents a verdict: a process that did not start, a cluster that did not heal.
pub fn run(arguments: Arguments) -> Result<ExitCode, Problem> {
    match arguments.part {
        None => drive::run(&arguments.options),
        Some(Part::Node(arguments)) => node::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
