//! Diesel's queries as text and plain values, and plain rows as Diesel's cursor.
//!
//! Diesel gives no access to the values that a query binds. `engine` is a private in-memory SQLite
//! database per connection: `capture` has it select the values of a query with the statements of
//! `probe`, and `replay` has it select rows that came from the primary.

mod capture;
mod engine;
mod probe;
mod replay;

pub(crate) use self::capture::sql_of;
pub(crate) use self::engine::BindEngine;
pub(crate) use self::probe::{BindCollector, Binds};
