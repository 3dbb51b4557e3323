//! What was acknowledged, and whether every later primary still has it.

pub(crate) mod ack_log;
pub(crate) mod detector;
pub(crate) mod terms;

pub(crate) use ack_log::OnLostWrites;
pub use ack_log::{Acknowledgement, LostWrite, LostWrites};
