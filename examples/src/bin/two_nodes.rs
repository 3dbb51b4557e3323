//! An application on two nodes that both write: see `litefs_examples::two_nodes`.

use std::process::ExitCode;

use clap::Parser;
use litefs_examples::two_nodes::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|problem| {
        eprintln!("two_nodes: {problem}");
        ExitCode::FAILURE
    })
}
