//! What travels: the messages of the protocol, free of sockets and of SQLite.

mod reply;
mod request;
mod statement;
mod value;

pub use reply::{
    Answer, DatabaseError, DatabaseErrorKind, Effects, Followed, Outcome, PrimaryHint, Refusal, Reply,
    RowSet, Settled, is_litefs_rejection,
};
pub use request::{Begin, BeginMode, Delivery, Follower, Request, RequestId, SessionId, Settings, Work};
pub use statement::{Repeated, Statement};
pub use value::Value;

/// The newest version of the protocol that this build speaks.
///
/// The handshake settles on the highest version that both sides know, so that during a rolling deploy a node
/// one version behind keeps working.
pub const PROTOCOL_VERSION: u16 = 1;

/// The oldest version of the protocol that this build still speaks.
pub const OLDEST_PROTOCOL_VERSION: u16 = 1;
