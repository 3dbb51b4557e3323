//! The transaction of a connection: its state, the statements that control it, and its public API.

mod api;
mod record;
mod run;
mod speculate;
mod state;

pub(super) use self::state::Transaction;
