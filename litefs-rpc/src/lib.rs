//! Write forwarding between the nodes of a LiteFS cluster.
//!
//! A replica's [`client`] sends a [`wire::Request`] to the primary's [`server`]. The server runs it
//! on its [`Executor`] and answers with the output and the position after the commit. A connection
//! starts with a [`handshake`] that proves a shared secret, and then carries tarpc messages in
//! length-delimited bincode frames. [`Limits`] bound every message and queue.
//!
//! ```text
//! Forwarder -> Connection ==tcp==> Handler -> Queue -> writer: role, Executor, confirm -> Reply
//!                                     `----> Readers: role, rows -----------------------^
//! ```
//!
//! The crate contains no routing and no Diesel query types. The feature `diesel` adds the executor
//! for SQLite, [`sqlite::SqliteExecutor`].
#![deny(clippy::missing_errors_doc)]

pub mod client;
pub mod diagnosis;
mod executor;
pub mod handshake;
mod limits;
mod secret;
pub mod server;
mod service;
#[cfg(feature = "diesel")]
pub mod sqlite;
mod transport;
pub mod wire;

pub use executor::{CommitExpectation, Done, Executor, GroupAborted, Reader, Readers};
pub use limits::Limits;
pub use secret::{MIN_SECRET_BYTES, Secret, SecretTooShort};
