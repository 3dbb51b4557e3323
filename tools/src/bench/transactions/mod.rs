//! Transactions over a slow link: on the replica's snapshot with one request at COMMIT, and in a
//! session on the primary.

mod conflicts;
mod latency;
mod load;
mod nodes;
mod session;
mod work;

use litefs_examples::Problem;

use super::report::Report;
use super::rounds::Effort;

pub(super) fn run(report: &mut Report, effort: Effort) -> Result<(), Problem> {
    session::run(report, effort)?;
    latency::run(report, effort)?;
    conflicts::run(report, effort)?;
    load::run(report, effort)
}
