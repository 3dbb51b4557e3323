//! What reads and writes through this library cost.
//!
//! Each figure compares two ways to do the same work, in alternating rounds, so that a disturbance
//! of the machine affects both. Each figure is printed as one line `name value unit`, followed by a
//! table at the end. `BENCHMARKS.md` explains the targets and how the limits were found.
//!
//! * `reads`: reads on a replica, through [`LiteFsConnection`] and through [`SqliteConnection`] on
//!   the same file and VFS. The `control` figures compare two plain connections: their distance
//!   from 1 is the error of the measurement.
//! * `forward`: an INSERT on a replica whose primary is another process; a bare tarpc call that
//!   makes a server do the same INSERT on the primary of another such pair, without the library;
//!   and the same over blocking sockets.
//! * `group`: concurrent INSERTs of this kind, with and without group commit, and the primary's own
//!   writes.
//! * `bulk`: ten thousand rows in one call.
//! * `transactions`: transactions over a slow link: round trips, conflicts with other writers, and
//!   throughput, of `transaction` and of `immediate_transaction`.
//! * `scale`: the cost of a hundred replicas, a thousand connections and a full queue.
//!
//! The embedded LiteFS takes microseconds where real LiteFS takes milliseconds (a commit through
//! FUSE, a network), so that the library's own cost is a large part of each figure. Its files are
//! synced to the disk as SQLite requests.
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
/// Any error that prevents the measurement: no free port, a process that did not start, a node that
/// did not answer.
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
