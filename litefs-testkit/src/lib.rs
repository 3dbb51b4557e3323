//! A LiteFS cluster inside a test, without FUSE and without Docker.
//!
//! Each node is a directory with real SQLite files and with the special files of a LiteFS mount
//! (`.primary`, `.lag`, `<db>-pos`), and an HTTP server that answers `GET /events`, `GET /info` and
//! `POST /promote` as LiteFS does. Commits on the primary become transactions with LiteFS's numbers
//! and checksums and travel to the replicas over TCP. Replicas refuse writes where LiteFS does and
//! with the same codes. And everything that goes wrong in production can be made to go wrong here,
//! on order: lag, stalls, cut links, failovers with and without loss, dead and frozen primaries.
//!
//! # A tour
//!
//! ```
//! use diesel::prelude::*;
//! use diesel::sql_query;
//! use litefs_testkit::Cluster;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two nodes; the first one is primary. The database exists on both.
//! let cluster = Cluster::builder().nodes(["a", "b"]).database("app.db").start()?;
//! let (a, b) = (cluster.node("a"), cluster.node("b"));
//!
//! // Applications open `file:/…/a/app.db?vfs=litefs-testkit`.
//! let mut primary = SqliteConnection::establish(&a.database_url("app.db"))?;
//! sql_query("CREATE TABLE item (name TEXT)").execute(&mut primary)?;
//! assert_eq!(a.position("app.db").txid, 2);
//!
//! // Replication takes a millisecond, or as long as the test wants.
//! b.set_replication_delay(Duration::from_millis(50))?;
//! sql_query("INSERT INTO item VALUES ('one')").execute(&mut primary)?;
//! assert_ne!(a.position("app.db"), b.position("app.db"));
//! cluster.wait_for_sync(Duration::from_secs(5))?;
//! assert_eq!(std::fs::read_to_string(b.dir().join(".primary"))?, "a\n");
//!
//! // A failover that loses the insert: the numbering goes back.
//! cluster.promote_losing_tail("b", 1)?;
//! assert!(b.is_primary());
//! assert_eq!(a.position("app.db").txid, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Processes
//!
//! [`Cluster`] hosts all nodes in one process. For a node per process, start a [`Node`] in each and
//! drive them from anywhere through [`Cluster::attach`] or [`Control::attach`] with their
//! [`http_url`](Control::http_url)s: the orders travel over the node's HTTP server. A node's files
//! may be opened only by the process that hosts it.
//!
//! # How it works
//!
//! A SQLite VFS named [`VFS_NAME`] stands where FUSE stands for LiteFS. It sees every lock, read
//! and write, so it captures a commit inside the release of the WAL's write lock, before COMMIT
//! returns, and it knows when no reader is in the way of a transaction that is to be applied. It is
//! registered at the first start of a node and is never the default: SQLite without `vfs=` stays as
//! it is.
//!
//! # What differs from LiteFS
//!
//! * Unix only; the guard against a foreign SQLite needs Linux. Each node keeps its databases in
//!   memory, once.
//! * Replication speaks the testkit's own protocol; there is no lease server, so no node is
//!   promoted on its own: tests (or `POST /promote`) decide.
//! * A dead node's special files do not answer ENOTCONN, they are empty and gone; I/O through the
//!   VFS fails with `SQLITE_IOERR_*`.
//! * A commit costs microseconds, nothing is synced to disk; see [`Control::set_commit_delay`].
//! * No HALT lock, no `/export`, `/import`, `/metrics`, no HTTP/2, no deletion of databases.
//! * `.lag` is written every 100 ms, not computed at each read.
//! * Journals in memory are captured too, when SQLite gives the file's lock back; LiteFS would miss
//!   them.
#![forbid(unsafe_code)]

mod cluster;
mod command;
mod context;
mod control;
mod database;
mod engine;
mod error;
mod events;
mod execute;
mod faults;
mod host;
mod http;
mod image;
mod journal;
mod launch;
mod locks;
mod node;
mod position;
mod relay;
mod remote;
mod runtime;
mod special;
mod status;
mod sync;
mod transaction;
mod vfs;
mod wal;
mod wal_index;
mod wire;

// Links SQLite, which `sqlite-plugin` calls.
use libsqlite3_sys as _;

pub use cluster::{Cluster, ClusterBuilder};
pub use control::{Control, RemoteNode};
pub use error::Error;
pub use faults::{DiskFault, EventFormat, EventStreamFault, InfoFault};
pub use node::{Node, NodeBuilder, database_url};
pub use position::{ParsePositionError, Position};
pub use relay::{Flow, Relay, Traffic};
pub use status::NodeStatus;
pub use vfs::VFS_NAME;
pub use wire::Peer;
