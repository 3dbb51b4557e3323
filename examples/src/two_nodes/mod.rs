//! An application on two nodes that both write.
//!
//! The program starts three processes from its own binary: an *upstream* that serves a data set,
//! and two *nodes*. Each node hosts a LiteFS (`litefs-testkit`) and a small web application over
//! Diesel. Then sixteen clients send a few thousand requests to both nodes, reads and writes alike,
//! and record the responses. Halfway the replica is promoted. At the end the records of the clients
//! are compared with the rows of both nodes.
//!
//! The exit status is 0 only if every acknowledged write is stored, once, and was visible to its
//! writer.

mod ack_log;
mod audit;
mod client;
mod cluster;
mod drive;
mod node;
mod options;
mod summary;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::options::Options;
use crate::{Problem, upstream};

/// Starts two nodes, sends requests to both, promotes the replica halfway, and checks the outcome
/// of every write.
#[derive(Debug, Parser)]
#[command(name = "two_nodes", args_conflicts_with_subcommands = true)]
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
    Upstream,
    #[command(hide = true)]
    Node(node::Arguments),
}

/// Runs the program, or the part of it that the arguments name.
///
/// # Errors
/// Any error that prevents a verdict: no free port, a process that did not start, a node that did
/// not answer.
pub fn run(arguments: Arguments) -> Result<ExitCode, Problem> {
    match arguments.part {
        None => drive::run(arguments.options),
        Some(Part::Upstream) => upstream::run().map(|()| ExitCode::SUCCESS),
        Some(Part::Node(arguments)) => node::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
