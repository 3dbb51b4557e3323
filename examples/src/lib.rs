//! The programs to run first.
//!
//! * `cargo run --release --bin two_nodes`: a small web application on two nodes that both write ([`two_nodes`]).
//! * `cargo run --release --bin bench`: what reading and forwarding cost ([`mod@bench`]).
//! * `cargo run --release --bin nemesis -- --seed 7 --seconds 30`: three nodes under attack, and a checker of what became
//!   of every write ([`nemesis`]).
//! * `resources`: the application of `two_nodes` by itself, on a real LiteFS mount ([`resources`]).
//! * `examples/`: small programs to copy from, each run by `cargo run -p litefs-examples --example <name>`.
//!
//! But for `resources` nothing has to be installed: LiteFS is played by `litefs-testkit`, SQLite comes with the build.

// Diesel's derives and `table!` name paths that this lint dislikes.
#![allow(unreachable_pub)]

pub mod bench;
pub mod nemesis;
pub mod resources;
pub mod two_nodes;

mod airports;
mod app;
mod link;
mod process;
mod stats;
mod telemetry;
mod upstream;

// Links the SQLite that comes with the build.
use libsqlite3_sys as _;

/// What ends a program early, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
