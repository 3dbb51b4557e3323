//! What a test can order a node to do, in this process or in another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Error;
use crate::faults::{DiskFault, EventFormat, EventStreamFault, Faults, InfoFault};
use crate::position::Position;
use crate::wire::Peer;

/// What a node is doing; see [`Control::status`](crate::Control::status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Who it is and where it listens.
    pub peer: Peer,
    /// False once it was killed or has died.
    pub alive: bool,
    /// Whether it holds the lease.
    pub is_primary: bool,
    /// The primary that it follows, or tries to.
    pub leader: Option<String>,
    /// Whether that primary has accepted it.
    pub connected: bool,
    /// Whether incoming replication is held back.
    pub stalled: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Names of the nodes that it is cut off from.
    pub cut: BTreeSet<String>,
    /// Position of each database.
    pub positions: BTreeMap<String, Position>,
}

/// An order; the setters of [`Control`](crate::Control) say what each does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    Status,
    BecomePrimary { back_to: BTreeMap<String, u64> },
    Drain,
    Follow { leader: Option<Peer> },
    ReplicationDelay(Duration),
    Stall,
    Resume,
    PassUntil(BTreeMap<String, u64>),
    Cut(String),
    Heal(String),
    CommitDelay(Duration),
    Sync(bool),
    DropNextCommit(bool),
    ForgetNextCommit(bool),
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

/// Carries out `command`. Roles need a live engine; faults can be set on a dead node too.
pub(crate) fn execute(faults: &Faults, engine: &Arc<Engine>, command: Command) -> Result<Answer, Error> {
    let mut refusal = 0;
    match command {
        Command::TakeRefusal => refusal = engine.context.take_refusal(),
        Command::LoseMount => engine.lose_mount(),
        Command::BecomePrimary { .. } | Command::Drain | Command::Follow { .. } => {
            take_role(engine, command)?
        }
        fault => set_fault(faults, engine, fault),
    }
    Ok(Answer { status: engine.status(), refusal })
}

fn take_role(engine: &Arc<Engine>, command: Command) -> Result<(), Error> {
    if engine.context.is_dead() {
        return Err(Error::Dead(engine.peer.name.clone()));
    }
    match command {
        Command::BecomePrimary { back_to } => engine.become_primary(&back_to)?,
        Command::Drain => engine.drain(),
        Command::Follow { leader } => engine.follow(leader),
        _ => {}
    }
    Ok(())
}

fn set_fault(faults: &Faults, engine: &Arc<Engine>, command: Command) {
    faults.change(|settings| match command {
        Command::ReplicationDelay(delay) => settings.replication_delay = delay,
        Command::Stall => (settings.stalled, settings.pass_until) = (true, BTreeMap::new()),
        Command::Resume => settings.stalled = false,
        Command::PassUntil(txids) => settings.pass_until = txids,
        Command::Cut(peer) => drop(settings.cut.insert(peer)),
        Command::Heal(peer) => drop(settings.cut.remove(&peer)),
        Command::CommitDelay(delay) => settings.commit_delay = delay,
        Command::Sync(sync) => settings.sync = sync,
        Command::DropNextCommit(drop) => settings.drop_next_commit = drop,
        Command::ForgetNextCommit(forget) => settings.forget_next_commit = forget,
        Command::RefuseLocks(refuse) => settings.refuse_locks = refuse,
        Command::Freeze(frozen) => settings.frozen = frozen,
        Command::Events(fault) => settings.events = fault,
        Command::EventFormat(format) => settings.event_format = format,
        Command::Info(fault) => settings.info = fault,
        Command::Disk(fault) => settings.disk = fault,
        Command::CachedReads(cached) => settings.cached_reads = cached,
        Command::Status
        | Command::TakeRefusal
        | Command::LoseMount
        | Command::BecomePrimary { .. }
        | Command::Drain
        | Command::Follow { .. } => {}
    });
    if faults.with(|settings| settings.events == EventStreamFault::Refuse) {
        engine.context.listeners.cut();
    }
}
