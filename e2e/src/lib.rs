//! The end-to-end scenarios E1 to E8 of the acceptance list, on real LiteFS.
//!
//! Two nodes run LiteFS and the application `resources` of the examples. This program talks to them
//! over HTTP only. It stops, starts, kills and promotes them through a command ([`Control`]), so
//! that the same scenarios run on Docker Compose (`run_tests.sh`) and on a machine with FUSE
//! (`run_local.sh`).
//!
//! The unit tests cover the parts that judge a run; they need no LiteFS.

mod arguments;
mod cluster;
mod control;
mod judge;
mod load;
mod node;
mod problem;
mod report;
mod scenario;
mod scenarios;
mod wire;

pub use arguments::Arguments;
pub use control::{Control, Verb};
pub use problem::Problem;
pub use report::Report;

use cluster::Cluster;
use control::Script;
use node::Node;

/// Runs the scenarios that the arguments name, and prints the result of each and the counts.
///
/// If the arguments are not valid or the HTTP clients cannot be created. Errors of a scenario are
/// part of the report.
/// is in the report.
pub fn run(arguments: Arguments) -> Result<Report, Problem> {
    let [a, b] = arguments.nodes()?;
    let nodes = [Node::new(a)?, Node::new(b)?];
    let cluster = Cluster::new(nodes, Script::new(arguments.control.clone()));
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(scenarios::run_all(&cluster, &arguments));
    print!("{report}");
    Ok(report)
}
