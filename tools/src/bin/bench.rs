//! What reads and forwarded writes cost: see `litefs_tools::bench`.

use std::process::ExitCode;

use clap::Parser;
use litefs_tools::bench::{Arguments, run};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}
