//! Tests of the tracker against a fake LiteFS: a directory and a small HTTP server.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod detection;
mod events;
mod fake;
mod litefs;
mod position;
mod trouble;
mod warnings;
