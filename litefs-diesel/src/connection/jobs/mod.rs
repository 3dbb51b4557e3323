//! What the driver runs: a query, a statement without rows, a batch, a script.

mod batch;
mod execute;
mod query;
mod script;

pub(crate) use self::batch::unexpected;
pub(super) use self::query::read;
