//! The end-to-end scenarios E1 to E8: what the finished software must be seen doing on real LiteFS.
//!
//! Two nodes run LiteFS and the application `resources` of the examples. This program reaches them by HTTP only, and has
//! them stopped, started, killed and promoted through a command that it is given ([`Control`]), so that the same
//! scenarios run on Docker Compose (`run_tests.sh`) and on a bare machine with FUSE (`run_local.sh`).
//!
//! Its own tests are unit tests of what judges: they need neither.

mod arguments;
mod cluster;
mod control;
mod judge;
mod load;
mod node;
mod report;
mod scenarios;
mod wire;

pub use arguments::Arguments;
pub use control::{Control, Verb};
pub use report::Report;

use cluster::Cluster;
use control::Script;
use node::Node;

/// What ends a scenario, or the program, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Runs the scenarios that the arguments ask for, prints what became of each, and the sum.
///
/// # Errors
/// Only what keeps it from beginning; what goes wrong in a scenario is in the report.
pub fn run(arguments: Arguments) -> Result<Report, Problem> {
    let [a, b] = arguments.nodes()?;
    let nodes = [Node::new(a)?, Node::new(b)?];
    let cluster = Cluster::new(nodes, Script::new(arguments.control.clone()));
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(scenarios::run_all(&cluster, &arguments));
    print!("{report}");
    Ok(report)
}
