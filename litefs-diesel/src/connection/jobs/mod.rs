//! The jobs of the driver: a query, a statement without rows, a batch, a script, a procedure.

mod batch;
mod call;
mod execute;
mod query;
mod script;

pub(super) use self::query::read;
