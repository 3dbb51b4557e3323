//! The commands that a test sends to a node, in this process or in another one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::{DiskFault, EventFormat, EventStreamFault, InfoFault};
use crate::status::NodeStatus;
use crate::wire::Peer;

/// A command; the methods of [`Control`](crate::Control) say what each does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    Status,
    BecomePrimary { back_to: BTreeMap<String, u64> },
    Drain,
    Follow { primary: Option<Peer> },
    ReplicationDelay(Duration),
    Stall,
    Resume,
    PassUntil(BTreeMap<String, u64>),
    Cut(String),
    Heal(String),
    CommitDelay(Duration),
    Sync(bool),
    DropNextCommit(bool),
    ForgetCommitAfter(u32),
    RefuseLocks(bool),
    Freeze(bool),
    Events(EventStreamFault),
    EventFormat(EventFormat),
    Info(InfoFault),
    Disk(DiskFault),
    CachedReads(bool),
    LoseMount,
    TakeRefusal,
}

/// A node's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: NodeStatus,
    /// For [`Command::TakeRefusal`].
    pub(crate) refusal: i32,
}
