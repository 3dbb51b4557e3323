//! Executes a test's command on a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Answer, Command};
use crate::engine::Engine;
use crate::error::Error;
use crate::faults::{EventStreamFault, Faults};

/// Executes `command`. Roles need a living engine; faults can be set on a dead node too.
pub(crate) fn execute(
    faults: &Faults,
    engine: &Arc<Engine>,
    command: Command,
) -> Result<Answer, Error> {
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
        Command::Follow { primary } => engine.follow(primary),
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
        Command::ForgetCommitAfter(taken) => settings.forget_after = Some(taken),
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
