//! The jobs of the driver: a query, a statement without rows, a batch, a script.

mod batch;
mod execute;
mod query;
mod script;

pub(super) use self::query::read;
