//! The application on a LiteFS mount: see `litefs_examples::resources`.

use std::process::ExitCode;

use clap::Parser;
use litefs_examples::resources::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("resources: {problem}");
            ExitCode::FAILURE
        }
    }
}
