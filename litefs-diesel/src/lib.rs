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
//! run on the primary, wherever it is now. What this process wrote, it reads ([`Consistency`]).
//! Where there is no LiteFS (a laptop, a test) everything is local, without a condition in the
//! application:
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
//! * What can go wrong between the nodes is told apart by what to do about it: [`Failure`].
//! * Asynchronous applications make their pools of `diesel_async` from the handle: feature `async`.
//! * Several processes of one node: all but one say [`serve(false)`](LiteFsBuilder::serve).

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
pub use litefs_core as core;
pub use litefs_rpc as rpc;
pub use litefs_rpc::client::Fate;
pub use litefs_rpc::wire::{Delivery, Outcome, RequestId};
pub use loss::{Acknowledgement, LostWrite, LostWrites};
pub use manager::ConnectionManager;
pub use options::{Durability, LiteFsBuilder, LocalWrites, StartError, TransactionMode};
pub use router::{
    EverythingOnPrimary, ForwardWrites, LocalOnly, RejectWrites, Route, Router, Situation,
};
