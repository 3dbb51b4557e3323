//! What reading and forwarding cost.
//!
//! Each figure compares two ways to do the same, in rounds that alternate: what disturbs the machine disturbs both. Of
//! each figure there is one line `name value unit`, and in the end a table for people.
//!
//! * `reads`: a typed `find(id).select(..).get_result(..)` on a replica, through [`LiteFsConnection`] and through
//!   [`SqliteConnection`] on the same file and VFS. `read_control_ratio` compares two plain connections: how far it is from 1
//!   is what the measurement itself is worth.
//! * `forward`: an INSERT on a replica whose primary is another process, and a bare tarpc call that makes a server do the
//!   same INSERT on the primary of another such pair, where nothing of the library runs.
//!
//! The embedded LiteFS costs microseconds where the real one costs milliseconds (a commit through FUSE, a network), so that
//! what the library itself costs shows as much as it can.
//!
//! [`LiteFsConnection`]: litefs_diesel::LiteFsConnection
//! [`SqliteConnection`]: diesel::SqliteConnection

mod bare;
mod forward;
mod items;
mod reads;
mod report;
mod server;

use std::io::Write;

use clap::{Parser, ValueEnum};
use litefs_diesel::core::Detectors;

use self::report::Report;
use crate::Problem;

/// The kernel tells nothing of LiteFS's own changes on FUSE. In the plain directory of the embedded one it would tell of
/// each write to the database, in whose directory `.primary` lies, and waking up for that is no part of forwarding.
const AS_ON_FUSE: Detectors = Detectors { primary_file: false, ..Detectors::ALL };

/// The database of both benches.
const DATABASE: &str = "bench.db";

/// Measures what reading and forwarding cost.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Point reads on a replica.
    Reads,
    /// Single-row inserts on a replica.
    Forward,
    /// Both.
    All,
    /// The primary of `forward` with the library. Started by the program itself.
    #[value(hide = true)]
    LitefsServer,
    /// The primary of `forward` without it.
    #[value(hide = true)]
    BareServer,
}

/// Runs the benches that the arguments name, or the part of one.
///
/// # Errors
/// Whatever kept it from measuring: no free port, a process that did not start, a node that did not answer.
pub fn run(arguments: &Arguments) -> Result<(), Problem> {
    match arguments.what {
        What::LitefsServer => return server::run_litefs(),
        What::BareServer => return server::run_bare(),
        What::Reads | What::Forward | What::All => {}
    }
    let mut report = Report::default();
    if arguments.what != What::Forward {
        reads::run(&mut report)?;
    }
    if arguments.what != What::Reads {
        forward::run(&mut report)?;
    }
    Ok(write!(std::io::stdout(), "\n{report}")?)
}
