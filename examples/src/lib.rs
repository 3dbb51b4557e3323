//! The programs to run first.
//!
//! * `cargo run --release --bin two_nodes`: a small web application on two nodes that both write
//!   ([`two_nodes`]).
//! * `resources`: the application of `two_nodes` by itself, on a real LiteFS mount ([`resources`]).
//! * `examples/`: small programs to copy from, each run by `cargo run -p litefs-examples --example
//!   <name>`.
//!
//! But for `resources` nothing has to be installed: LiteFS is played by `litefs-testkit`, SQLite
//! comes with the build. The bench and the nemesis are in `tools`; they share [`process`] and
//! [`stats`].

// Diesel's derives and `table!` name paths that this lint dislikes.
#![allow(unreachable_pub)]

pub mod process;
pub mod resources;
pub mod stats;
pub mod two_nodes;

mod airports;
mod app;
mod telemetry;
mod upstream;

// Links the SQLite that comes with the build.
use libsqlite3_sys as _;

/// What ends a program early, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
