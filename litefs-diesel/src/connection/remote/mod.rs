//! The primary, seen from a connection: how work gets there and what comes back.

pub(super) mod channel;
pub(super) mod outcome;
pub(super) mod session;
pub(super) mod write;
