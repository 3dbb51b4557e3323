//! The tracker against a LiteFS made of a directory and a few lines of HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod detection;
mod events;
mod fake;
mod litefs;
mod position;
mod trouble;
mod warnings;
