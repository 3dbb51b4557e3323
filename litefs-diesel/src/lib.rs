//! Diesel on LiteFS: every node reads its own SQLite file and writes through its normal connection.
//!
//! [LiteFS](https://github.com/superfly/litefs) replicates SQLite databases from one primary to
//! many replicas, and on a replica SQLite cannot write. Two lines change in an application that
//! keeps its data there through Diesel:
//!
//! ```no_run
//! use diesel::r2d2;
//! use litefs_diesel::LiteFs;
//!
//! // Tracks the primary, and executes the writes of other nodes while this node is the primary.
//! let litefs = LiteFs::start("/litefs/app.db")?;
//! // Replaces `ConnectionManager<SqliteConnection>`.
//! let pool = r2d2::Pool::builder().build(litefs.connection_manager())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reads run on the local file. INSERT, UPDATE, DELETE, DDL, RETURNING, scripts and transactions
//! that write run on the current primary. Reads see what this process has written
//! ([`Consistency`]). Without LiteFS, as on a laptop or in a test, everything is local, and the
//! application is the same:
//!
//! ```
//! use diesel::prelude::*;
//! use litefs_diesel::{LiteFs, LiteFsConnection};
//!
//! diesel::table! { notes { id -> Integer, text -> Text, } }
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("app.db");
//! # let path = path.to_str().unwrap();
//! let litefs = LiteFs::start(path)?;
//! let mut conn: LiteFsConnection = litefs.establish()?;
//! diesel::sql_query("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
//!     .execute(&mut conn)?;
//! let id: i32 = diesel::insert_into(notes::table)
//!     .values(notes::text.eq("hello"))
//!     .returning(notes::id)
//!     .get_result(&mut conn)?;
//! assert_eq!(notes::table.find(id).select(notes::text).get_result::<String>(&mut conn)?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * Where a statement runs is decided by SQLite's own planner ([`Access`]) and a [`Router`].
//! * [`Failure`] is the kind of an error of this library. It says what a caller may do.
//! * Work that takes several statements is one round trip as a [`Procedure`].
//! * The feature `async` makes pools of `diesel_async` from the handle.
//! * If several processes of a node use the database, all but one set
//!   [`serve(false)`](LiteFsBuilder::serve).
//! * The types of `litefs-core` and `litefs-rpc` that applications need are re-exported. For
//!   others, depend on these crates.

#![deny(missing_debug_implementations)]

mod access;
#[cfg(feature = "async")]
mod asynchronous;
mod batch_insert;
mod bind;
mod connection;
mod consistency;
mod error;
mod failure;
mod handle;
mod loss;
mod manager;
mod node;
mod options;
mod router;

pub use access::Access;
#[cfg(feature = "async")]
pub use asynchronous::{AsyncLiteFsConnection, transaction_with_retry_async};
pub use batch_insert::{BatchInsertDsl, IntoRows, IntoStatements, MappedRows, Rows, Upserts};
pub use connection::LiteFsConnection;
pub use consistency::{Consistency, UnknownName, WhenBehind};
pub use failure::{DieselErrorExt, Failure};
pub use handle::LiteFs;
pub use litefs_core::{
    Checksum, ConfigBuilder, ConfigError, DatabaseUrl, Detectors, NodeName, Position, Presence,
    Role, RoleKind, RoleState, Status, Tracker, Txid,
};
pub use litefs_rpc::Limits;
pub use litefs_rpc::client::Fate;
pub use litefs_rpc::server::ServeError;
pub use litefs_rpc::sqlite::Procedure;
pub use litefs_rpc::wire::{Delivery, Outcome, RequestId};
pub use loss::{Acknowledgement, LostWrite, LostWrites};
pub use manager::ConnectionManager;
pub use options::{Durability, LiteFsBuilder, LocalWrites, StartError, TransactionMode};
pub use router::{
    EverythingOnPrimary, ForwardWrites, LocalOnly, RejectWrites, Route, Router, Situation,
};
