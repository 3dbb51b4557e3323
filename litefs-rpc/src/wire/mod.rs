//! The messages of the protocol. They depend on neither sockets nor SQLite.

mod procedure;
mod reply;
mod request;
mod statement;
mod transaction;
mod value;
mod version;

pub use procedure::{Call, ProcedureFault};
pub use reply::{
    DatabaseError, DatabaseErrorKind, Outcome, Output, PrimaryHint, PrimaryReport, Reply,
    ResolvedOutcome, RowSet, ServerError, SessionCounters,
};
pub use request::{
    Begin, BeginMode, Command, Delivery, ReplicaReport, Request, RequestId, SessionId, Settings,
};
pub use statement::{Repeated, Statement};
pub use transaction::{RecordedStep, RecordedTransaction, Seen};
pub use value::Value;
pub use version::ProtocolVersion;
