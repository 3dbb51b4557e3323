//! What can be attacked: the line between the schedule and the machines it is carried out on.

use litefs_examples::Problem;

use super::history::{Row, Takeover};
use super::losses::Losses;
use super::schedule::Fault;

/// A cluster under attack. Its calls block until what they are for has happened.
///
/// The embedded cluster is one; real LiteFS mounts are another, with fewer faults at its disposal.
pub(super) trait Attack {
    /// Begins a fault. `id` names it until it is ended. Returns a description of what was done to
    /// which node.
    fn begin(&mut self, id: usize, fault: Fault) -> Result<String, Problem>;

    /// Ends a fault. Returns in words what was done.
    fn end(&mut self, id: usize, fault: Fault) -> Result<String, Problem>;

    /// Ends all faults, brings everything back, waits until all nodes have the same.
    fn heal(&mut self) -> Result<(), Problem>;

    /// What every node has, in full, once none of them does anything any more.
    fn finals(&self) -> Result<Vec<(String, Vec<Row>)>, Problem>;

    /// When primaries followed each other.
    fn takeovers(&self) -> Vec<Takeover>;

    /// What is known about lost acknowledged writes.
    fn losses(&self) -> Losses;
}
