//! What travels: the messages of the protocol, free of sockets and of SQLite.

mod reply;
mod request;
mod statement;
mod value;
mod version;

pub use reply::{
    Answer, DatabaseError, DatabaseErrorKind, Effects, Followed, Outcome, PrimaryHint, Refusal, Reply,
    RowSet, Settled,
};
pub use request::{Begin, BeginMode, Delivery, Follower, Request, RequestId, SessionId, Settings, Work};
pub use statement::{Repeated, Statement};
pub use value::Value;
pub use version::ProtocolVersion;
