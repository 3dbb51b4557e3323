//! Programs for work on the library: benchmarks and fault injection.
//!
//! * `cargo run --release --bin bench`: what reads and forwarded writes cost ([`mod@bench`]).
//! * `cargo run --release --bin nemesis -- --seed 7 --seconds 30`: three nodes under attack, and a
//!   checker of what became of every write ([`nemesis`]).
//! * `point_reads`: the reads whose instructions `.ci/instructions` counts.
//!
//! Nothing has to be installed: LiteFS is played by `litefs-testkit`, SQLite comes with the build.

// Diesel's derives and `table!` name paths that this lint dislikes.
#![allow(unreachable_pub)]

pub mod bench;
pub mod nemesis;

// Links the SQLite that comes with the build.
use libsqlite3_sys as _;
