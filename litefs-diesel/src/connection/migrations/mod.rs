//! Migrations from any node, each applied once however many nodes start at the same time.
//!
//! Diesel's harness ([`diesel_migrations`](https://docs.rs/diesel_migrations)) lists what was
//! applied, then runs each pending migration in a transaction of its own, which ends by entering
//! the migration's version. Between the list and the transaction another node may have applied it.
//! So a transaction that begins with a script, on a connection that has asked for the list, takes
//! the write lock and reads the list again:
//!
//! ```text
//! Idle --setup--> Listed --BEGIN--> Begun --script--> the list is the same: the script runs
//!                   ^                       another list: Held --version's row--> run, unless it
//!                   |                                                             is there
//!                   '------------COMMIT of a transaction with a version's row-----'
//! ```
//!
//! Only the version tells which migration a transaction is about, and it comes last. If the list
//! has changed, the script is therefore held back until the version is known, and runs only if that
//! version is not there. Any other statement that comes first makes the script run at once.
//!
//! A migration that does not begin with a script, written in Rust, or that wants no transaction is
//! not held back: if two nodes run it at once, one fails.

mod run;
mod state;

pub(super) use self::state::Migrations;
