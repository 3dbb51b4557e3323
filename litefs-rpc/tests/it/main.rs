//! Tests of client, server and executor through their public interface.

// Clippy treats only functions with `#[test]` as tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod exclusive;
mod faults;
mod forwarder;
mod group;
mod groups;
mod limits;
mod merge;
mod reading;
mod replay;
mod retry;
mod server;
mod sessions;
mod support;
