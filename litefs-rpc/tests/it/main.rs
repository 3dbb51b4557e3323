//! Tests of client, server and executor through their public interface.

// Clippy treats only functions with `#[test]` as tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod exclusive;
mod faults;
mod forwarder;
#[cfg(feature = "diesel")]
mod group;
mod groups;
mod limits;
#[cfg(feature = "diesel")]
mod merge;
#[cfg(feature = "diesel")]
mod procedures;
#[cfg(feature = "diesel")]
mod reading;
#[cfg(feature = "diesel")]
mod replay;
mod retry;
mod server;
mod sessions;
mod support;
