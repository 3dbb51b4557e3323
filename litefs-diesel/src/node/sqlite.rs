//! Opens SQLite connections and sets them up for this node.

use diesel::connection::{
    Connection, InstrumentationEvent, SimpleConnection, get_default_instrumentation,
};
use diesel::result::{ConnectionError, ConnectionResult};
use litefs_core::{RoleKind, Tracker};
use litefs_rpc::sqlite::{Checkpointer, Opened};

use crate::options::ConnectionHook;

/// How long a connection waits for a lock, in milliseconds, unless the application sets another
/// `busy_timeout`. SQLite's default is not to wait, but on a replica LiteFS itself takes all locks
/// for each transaction that it applies, and a read at that moment would fail.
const BUSY_TIMEOUT: u32 = 5_000;

/// Opens a connection and runs the hook on it. `checkpointed`: checkpoints are run by a thread of
/// this process.
pub(super) fn open(
    url: &str,
    hook: Option<&ConnectionHook>,
    checkpointed: bool,
) -> ConnectionResult<Opened> {
    let mut opened = Opened::establish(url)?;
    let connection = &mut opened.connection;
    // The default instrumentation is the user's. It reports the user's hook, and not what the
    // library itself runs.
    // Where there is none, none is set: Diesel would call an empty one for each event.
    let default = get_default_instrumentation();
    if default.is_some() {
        connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    }
    let prepared = connection.batch_execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT}"));
    let prepared = prepared.and_then(|()| {
        // Before the hook, so that the hook can override it.
        if checkpointed { Checkpointer::take_over(connection) } else { Ok(()) }
    });
    if let Some(default) = default {
        connection.set_instrumentation(default);
    }
    prepared
        .and_then(|()| hook.map_or(Ok(()), |hook| hook(connection)))
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(opened)
}

/// How LiteFS's position is read when a commit begins. Where this node is not the primary there is
/// nothing to confirm.
pub(crate) fn read_positions(
    tracker: Tracker,
) -> Box<dyn Fn() -> Option<litefs_core::Position> + Send + Sync> {
    Box::new(move || {
        let primary = tracker.stamp().kind() == RoleKind::Primary;
        primary.then(|| tracker.peek_position().ok()).flatten()
    })
}
