//! Example programs.
//!
//! * `cargo run --release --bin two_nodes`: a small web application on two nodes that both write
//!   ([`two_nodes`]).
//! * `resources`: the application of `two_nodes` by itself, on a real LiteFS mount ([`resources`]).
//! * `examples/`: small programs to copy from, each run by `cargo run -p litefs-examples --example
//!   <name>`.
//!
//! Except for `resources` nothing has to be installed: `litefs-testkit` stands in for LiteFS, and
//! SQLite is built in. The bench and the nemesis are in `tools`; they use [`process`] and [`stats`]
//! too.

// The paths that Diesel's derives and `table!` generate violate this lint.
#![allow(unreachable_pub)]

pub mod process;
pub mod resources;
pub mod stats;
pub mod two_nodes;

mod airports;
mod app;
mod telemetry;
mod upstream;

// Links the SQLite that is built in.
use libsqlite3_sys as _;

/// An error that ends a program, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
