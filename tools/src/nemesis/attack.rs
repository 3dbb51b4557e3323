//! The interface between the schedule of faults and the cluster that they are injected into.

use litefs_examples::Problem;

use super::history::{Row, Takeover};
use super::losses::Losses;
use super::schedule::Fault;

/// A cluster under attack. Calls block until they have taken effect.
///
/// Implemented by the embedded cluster and by real LiteFS mounts, which support fewer faults.
pub(super) trait Attack {
    /// Begins a fault. `id` identifies it until it is ended. Returns a description of the fault and
    /// its node.
    fn begin(&mut self, id: usize, fault: Fault) -> Result<String, Problem>;

    /// Ends a fault. Returns a description of what was done.
    fn end(&mut self, id: usize, fault: Fault) -> Result<String, Problem>;

    /// Ends all faults, restores all nodes, and waits until they have the same data.
    fn heal(&mut self) -> Result<(), Problem>;

    /// The content of every node once no operation is under way.
    fn finals(&self) -> Result<Vec<(String, Vec<Row>)>, Problem>;

    /// When the primary changed.
    fn takeovers(&self) -> Vec<Takeover>;

    /// The information about lost acknowledged writes.
    fn losses(&self) -> Losses;
}
