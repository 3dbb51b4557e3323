//! What reading and writing through this library cost.
//!
//! Each figure compares two ways to do the same, in rounds that alternate: what disturbs the
//! machine disturbs both. Of each figure there is one line `name value unit`, and in the end a
//! table for people. What the targets are and how the limits were found is in `BENCHMARKS.md`.
//!
//! * `reads`: reads on a replica, through [`LiteFsConnection`] and through [`SqliteConnection`] on
//!   the same file and VFS. The `control` figures compare two plain connections: how far they are
//!   from 1 is what the measurement is worth.
//! * `forward`: an INSERT on a replica whose primary is another process, a bare tarpc call that
//!   makes a server do the same INSERT on the primary of another such pair, where nothing of the
//!   library runs, and the same over blocking sockets.
//! * `group`: many such INSERTs at a time, that share commits and that do not; and the primary's
//!   own.
//! * `bulk`: ten thousand rows in one call.
//! * `transactions`: what a transaction costs over a slow link, in round trips.
//! * `scale`: what a hundred replicas, a thousand connections and a full queue cost.
//!
//! The embedded LiteFS costs microseconds where the real one costs milliseconds (a commit through
//! FUSE, a network), so that what the library itself costs shows as much as it can. Its files are
//! synced to the disk as SQLite asks.
//!
//! [`LiteFsConnection`]: litefs_diesel::LiteFsConnection
//! [`SqliteConnection`]: diesel::SqliteConnection

mod bare;
mod bulk;
mod forward;
mod group;
mod items;
mod local;
mod node;
mod options;
mod pair;
mod plot;
mod raw;
mod reads;
mod report;
mod rig;
mod rounds;
mod rows;
mod scale;
mod server;
mod storm;
mod transactions;

use std::io::Write;

use litefs_examples::Problem;

pub use self::options::Arguments;
use self::options::What;
use self::report::Report;

/// Runs the benches that the arguments name, or the part of one.
///
/// # Errors
/// Whatever kept it from measuring: no free port, a process that did not start, a node that did not
/// answer.
pub fn run(arguments: &Arguments) -> Result<(), Problem> {
    match arguments.what {
        What::LitefsServer => return server::run_litefs(&arguments.setup),
        What::BareServer => return server::run_bare(&arguments.setup),
        _ => {}
    }
    arguments.check()?;
    let mut report = Report::default();
    let (effort, mount) = (arguments.effort(), arguments.mount());
    if arguments.wants(What::Reads) {
        reads::run(&mut report, effort, mount.as_ref())?;
    }
    if arguments.wants(What::Forward) {
        forward::run(&mut report, effort, mount.as_ref())?;
    }
    if arguments.wants(What::Group) {
        group::run(&mut report, effort, mount.as_ref(), arguments.plot.as_deref())?;
        if mount.is_none() {
            local::run(&mut report, effort)?;
        }
    }
    if arguments.wants(What::Bulk) {
        bulk::run(&mut report, effort, mount.as_ref())?;
    }
    if arguments.wants(What::Transactions) {
        transactions::run(&mut report, effort)?;
    }
    if arguments.wants(What::Scale) {
        scale::run(&mut report, effort)?;
    }
    Ok(write!(std::io::stdout(), "\n{report}")?)
}
