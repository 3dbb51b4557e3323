//! Tests of client, server and executor through their public interface.

// Helpers of tests are tests: clippy looks at the functions only.
#![allow(clippy::unwrap_used)]

mod faults;
mod group;
mod groups;
mod lanes;
mod merge;
mod reading;
mod replay;
mod retry;
mod server;
mod support;
