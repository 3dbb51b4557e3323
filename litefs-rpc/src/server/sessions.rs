//! The table of open transactions. It holds the sending ends of their statements, so removing an
//! entry ends the transaction: its channel closes and the writer rolls back.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::job::{Opened, Step};
use crate::wire::{ServerError, SessionId};

/// How many ended sessions are remembered, to answer a late statement with the reason.
const REMEMBERED: usize = 256;

/// Identifies one client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionId(pub(super) u64);

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Finished,
    Disconnected,
    Demoted,
    RolledBackBySqlite,
    IdleLimit(Duration),
    TotalLimit(Duration),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Finished => f.write_str("it was already finished"),
            Ended::Disconnected => f.write_str(ServerError::LOST_WITH_CONNECTION),
            Ended::Demoted => f.write_str(ServerError::LOST_BY_DEMOTION),
            Ended::RolledBackBySqlite => f.write_str("SQLite rolled it back after an error"),
            Ended::IdleLimit(limit) => write!(f, "it was idle for longer than {limit:?}"),
            Ended::TotalLimit(limit) => write!(f, "it was open for longer than {limit:?}"),
        }
    }
}

/// The open transactions of all connections.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    open: HashMap<SessionId, (ConnectionId, SyncSender<Step>)>,
    ended: VecDeque<(SessionId, Ended)>,
}

impl Sessions {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().expect("no code panics while it holds the session table")
    }

    pub(super) fn open(&self, connection: ConnectionId) -> Opened {
        // One statement at a time: a connection waits for each answer.
        let (sender, steps) = sync_channel(1);
        let mut table = self.table();
        table.last_id += 1;
        let id = SessionId(table.last_id);
        table.open.insert(id, (connection, sender));
        Opened { id, steps }
    }

    /// Sends a step to the session, if it is open and belongs to this connection.
    pub(super) fn send(
        &self,
        id: SessionId,
        connection: ConnectionId,
        step: Step,
    ) -> Result<(), ServerError> {
        let table = self.table();
        let lost = |reason: String| Err(ServerError::SessionLost { reason });
        match table.open.get(&id) {
            Some((owner, steps)) if *owner == connection => match steps.try_send(step) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(_)) => lost("two statements were sent at once".into()),
                Err(TrySendError::Disconnected(_)) => lost(Ended::Disconnected.to_string()),
            },
            Some(_) => lost("it belongs to another connection".into()),
            None => lost(table.reason(id)),
        }
    }

    /// Why a session is not open.
    pub(super) fn reason(&self, id: SessionId) -> String {
        self.table().reason(id)
    }

    pub(super) fn end(&self, id: SessionId, why: Ended) {
        let mut table = self.table();
        // The first reason stays: after a demotion the writer ends the session once more.
        if table.open.remove(&id).is_some() {
            table.remember(id, why);
        }
    }

    pub(super) fn end_of(&self, connection: ConnectionId) {
        self.end_where(Ended::Disconnected, |owner| owner == connection);
    }

    pub(super) fn end_all(&self, why: Ended) {
        self.end_where(why, |_| true);
    }

    fn end_where(&self, why: Ended, ends: impl Fn(ConnectionId) -> bool) {
        let mut table = self.table();
        let ids: Vec<_> =
            table.open.iter().filter(|(_, (owner, _))| ends(*owner)).map(|(id, _)| *id).collect();
        for id in ids {
            table.open.remove(&id);
            table.remember(id, why);
        }
    }
}

impl Table {
    fn remember(&mut self, id: SessionId, why: Ended) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, why));
    }

    fn reason(&self, id: SessionId) -> String {
        let ended = self.ended.iter().find(|(ended, _)| *ended == id);
        ended.map_or_else(|| "it is not known here".into(), |(_, why)| why.to_string())
    }
}
