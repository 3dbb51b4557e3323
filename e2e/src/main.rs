//! The end-to-end scenarios E1 to E8 over two running nodes: see `litefs_e2e`.

use std::process::ExitCode;

use clap::Parser;
use litefs_e2e::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("litefs-e2e: {problem}");
            ExitCode::FAILURE
        }
    }
}
