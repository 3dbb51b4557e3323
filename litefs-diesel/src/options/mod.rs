//! The options of a handle and its builder.

mod builder;
mod define;
pub(crate) mod durability;
mod given;
pub(crate) mod local_writes;
mod start_error;
#[cfg(test)]
mod tests;
pub(crate) mod transactions;

pub use self::builder::LiteFsBuilder;
pub(crate) use self::builder::{ConnectionHook, Options};
pub use self::durability::Durability;
pub use self::local_writes::LocalWrites;
pub use self::start_error::StartError;
pub use self::transactions::TransactionMode;
