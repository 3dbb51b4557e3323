//! The role of this node in a LiteFS cluster, and the position of its database.
//!
//! [LiteFS](https://github.com/superfly/litefs) replicates SQLite databases from one primary to
//! many replicas and leaves traces of what it is doing: `.primary`, `.lag` and `<db>-pos` in its
//! mount, `/info` and `/events` over HTTP. None of them alone says which node is the primary. An
//! absent `.primary` does not mean that this node is. A [`Tracker`] merges them into one [`Role`]
//! and follows the database's [`Position`].
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use litefs_core::{Config, Role, Tracker};
//! use tokio::time::Instant;
//!
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! // The mount is the directory of the database. Options come from LITEFS_* variables and from the
//! // builder.
//! let config = Config::builder("/litefs/app.db").from_env().require_litefs(true).build()?;
//! let tracker = Tracker::start(config).await?;
//!
//! // Which node is the primary, now ...
//! match tracker.role() {
//!     Role::Primary | Role::Standalone => println!("write here"),
//!     Role::Replica { primary } => println!("write on {}", tracker.rpc_address(&primary)),
//!     Role::Unknown => println!("wait before writing"),
//! }
//!
//! // ... and was it the same before and after a piece of work? One atomic load each.
//! let before = tracker.stamp();
//! let still_primary = before.is_primary() && tracker.stamp() == before;
//!
//! // What was written elsewhere is read here once the local database has come that far.
//! let written = tracker.read_position()?;
//! tracker.wait_for_txid(written.txid, Instant::now() + Duration::from_secs(1)).await?;
//! # let _ = still_primary;
//! # Ok(())
//! # }
//! ```
//!
//! # How the role is found
//!
//! Each source is a [`Detector`] that reports [`Observation`]s; one pure function merges what is
//! known. The event stream and `/info` are authoritative, the fresher one wins; `.primary` can only
//! say "replica of that node"; a write to the tracking table that LiteFS rejects can only say "not
//! primary". Without proof the role is [`Role::Unknown`]. Where a process has once seen LiteFS it
//! never takes the directory for a plain one again.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod backoff;
mod claim;
mod commit_guard;
mod config;
mod debounce;
mod detect;
mod evidence;
mod merge;
mod mount;
mod node_name;
mod pending_commits;
mod position;
mod role;
mod sync;
mod tracker;

pub use backoff::Backoff;
pub use claim::{Claim, InfoAnswer, Observation, Owner};
pub use commit_guard::{
    AfterCommit, CommitExpectation, CommitGuard, NotConfirmed, UnconfirmedCommit,
};
pub use config::{
    Config, ConfigBuilder, ConfigError, DatabaseUrl, Detectors, TableName, TableNameError,
};
pub use detect::{Detector, Event, EventError, Info, InfoError, Sink, parse_event, parse_info};
pub use evidence::ObservationSeq;
pub use mount::{
    MalformedFile, Mount, MountError, PositionError, Presence, parse_lag, parse_position,
    parse_primary,
};
pub use node_name::{NodeName, NodeNameError};
pub use pending_commits::PendingCommits;
pub use position::{Checksum, ParsePositionError, Position, Txid};
pub use role::{Role, RoleKind, RoleStamp, RoleState};
pub use tracker::{
    DetectorState, DetectorStatus, PromoteError, StartError, Status, Tracker, WaitError,
};
