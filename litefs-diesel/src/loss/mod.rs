//! Acknowledged writes, and which of them a later primary lacks.

pub(crate) mod ack_log;
pub(crate) mod terms;

pub(crate) use ack_log::OnLostWrites;
pub use ack_log::{Acknowledgement, LostWrite, LostWrites};
