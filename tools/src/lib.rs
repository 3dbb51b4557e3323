//! Programs for work on the library: benchmarks and fault injection.
//!
//! * `cargo run --release --bin bench`: what reads and forwarded writes cost ([`mod@bench`]).
//! * `cargo run --release --bin nemesis -- --seed 7 --seconds 30`: three nodes under fault
//!   injection, and a checker of the outcome of every write ([`nemesis`]).
//! * `point_reads`: the reads whose instructions `.ci/instructions` counts.
//!
//! Nothing has to be installed: `litefs-testkit` stands in for LiteFS, and SQLite is built in.

// The paths that Diesel's derives and `table!` generate violate this lint.
#![allow(unreachable_pub)]

pub mod bench;
pub mod nemesis;

// Links the SQLite that is built in.
use libsqlite3_sys as _;
