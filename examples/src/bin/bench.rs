//! What reading and forwarding cost: see `litefs_examples::bench`.

use std::process::ExitCode;

use clap::Parser;
use litefs_examples::bench::{Arguments, run};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}
