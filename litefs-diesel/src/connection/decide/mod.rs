//! The decisions of a connection: pure functions, each with a table of tests.

pub(super) mod control;
pub(super) mod destination;
pub(super) mod may_write;
pub(super) mod phase;
