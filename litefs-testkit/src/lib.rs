//! A LiteFS cluster inside a test, without FUSE and without Docker.
//!
//! Each node is a directory with real SQLite files and with the special files of a LiteFS mount
//! (`.primary`, `.lag`, `<db>-pos`), and an HTTP server that answers `GET /events`, `GET /info` and
//! `POST /promote` as LiteFS does. Commits on the primary become transactions with LiteFS's numbers
//! and checksums and are sent to the replicas over TCP. Replicas refuse writes where LiteFS does,
//! with the same codes. Tests can inject the failures of production: lag, stalls, cut links,
//! failovers with and without loss, dead and frozen primaries.
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
//! // Replication takes a millisecond, or the delay that the test sets.
//! b.set_replication_delay(Duration::from_millis(50))?;
//! sql_query("INSERT INTO item VALUES ('one')").execute(&mut primary)?;
//! assert_ne!(a.position("app.db"), b.position("app.db"));
//! cluster.wait_for_sync(Duration::from_secs(5))?;
//! assert_eq!(std::fs::read_to_string(b.dir().join(".primary"))?, "a\n");
//!
//! // A failover that loses the insert: the position goes back.
//! cluster.promote_losing_tail("b", 1)?;
//! assert!(b.is_primary());
//! assert_eq!(a.position("app.db").txid, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Processes
//!
//! [`Cluster`] hosts all nodes in one process. For one node per process, start a [`Node`] in each
//! and control them from any process through [`Cluster::attach`] or [`Control::attach`] with their
//! [`http_url`](Control::http_url)s: the commands are sent to the node's HTTP server. A node's
//! files may be opened only by the process that hosts it.
//!
//! # How it works
//!
//! A SQLite VFS named [`VFS_NAME`] takes the place that FUSE has in LiteFS. It sees every lock,
//! read and write, so it captures a commit during the release of the WAL's write lock, before
//! COMMIT returns, and it knows when no reader blocks the next transaction to apply. It is
//! registered at the first start of a node and is never the default VFS: SQLite without `vfs=` is
//! not affected.
//!
//! # What differs from LiteFS
//!
//! * Unix only; the guard against a foreign SQLite needs Linux. Each node keeps a copy of its
//!   databases in memory.
//! * Replication uses the testkit's own protocol. There is no lease server, so no node is promoted
//!   on its own: tests (or `POST /promote`) decide.
//! * The special files of a dead node do not fail with ENOTCONN: they are empty or missing. I/O
//!   through the VFS fails with `SQLITE_IOERR_*`.
//! * A commit takes microseconds and is not synced to disk; see [`Control::set_commit_delay`].
//! * There is no HALT lock, no `/export`, `/import`, `/metrics`, no HTTP/2, no deletion of
//!   databases.
//! * `.lag` is written every 100 ms, not computed at each read.
//! * Journals in memory are captured too, when SQLite unlocks the file; LiteFS would miss them.
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
