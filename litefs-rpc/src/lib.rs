//! Write forwarding between the nodes of a LiteFS cluster.
//!
//! A replica's [`client`] sends a [`wire::Request`] to the primary's [`server`], which runs it on its
//! [`Executor`] and answers with what it produced and the position after the commit. In between: a
//! [`handshake`] by shared secret, tarpc over length-delimited bincode frames, [`Limits`] on everything.
//!
//! ```text
//! Forwarder -> Client -> Link ==tcp==> Handler -> Queue -> writer thread: role guard, Executor, proof -> Reply
//!                                         `-----> one of some Readers: role guard, rows ----------------^
//! ```
//!
//! The crate knows nothing of routing or of Diesel's query types. The feature `diesel` brings the executor for
//! SQLite, [`sqlite::SqliteExecutor`].
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
