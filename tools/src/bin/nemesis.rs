//! Three nodes under attack: see `litefs_tools::nemesis`.

use std::process::ExitCode;

use clap::Parser;
use litefs_tools::nemesis::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|problem| {
        eprintln!("nemesis: {problem}");
        ExitCode::FAILURE
    })
}
