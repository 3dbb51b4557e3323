//! The faults that a test can inject into a node. The settings survive a kill and a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sync::{Signal, locked};

/// How a node treats clients of `GET /events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStreamFault {
    /// As LiteFS does.
    #[default]
    None,
    /// Streams stay open and new ones get their headers and `init`, but no later event arrives.
    Silent,
    /// Open streams are cut in the middle of the chunked body, as when the LiteFS process dies; new
    /// ones are answered `503`.
    Refuse,
    /// New requests are accepted and never answered; open streams go silent.
    Hang,
}

/// The content type of `GET /events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventFormat {
    /// One JSON object and a newline per event, `application/json`, as LiteFS sends.
    #[default]
    JsonLines,
    /// `data: ` lines, `text/event-stream`, as a proxy might send.
    ServerSentEvents,
}

/// How a node answers `GET /info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfoFault {
    /// As LiteFS does.
    #[default]
    None,
    /// `503`.
    Refuse,
    /// The request is accepted and never answered.
    Hang,
}

/// How writes through the VFS fail, as on a full or broken disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFault {
    /// Writes succeed.
    #[default]
    None,
    /// `SQLITE_FULL`, SQLite's own code for `ENOSPC`.
    Full,
    /// `SQLITE_IOERR_WRITE`: LiteFS answers every disk failure with `EIO`, a full disk included.
    Io,
}

/// All settings; see the setters of [`Control`](crate::Control) for what each does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) replication_delay: Duration,
    pub(crate) stalled: bool,
    /// Per database: transactions up to this number pass a stall.
    pub(crate) pass_until: BTreeMap<String, u64>,
    pub(crate) cut: BTreeSet<String>,
    pub(crate) commit_delay: Duration,
    pub(crate) sync: bool,
    pub(crate) drop_next_commit: bool,
    /// How many commits are captured before one is dropped silently.
    pub(crate) forget_after: Option<u32>,
    pub(crate) refuse_locks: bool,
    pub(crate) frozen: bool,
    pub(crate) events: EventStreamFault,
    pub(crate) event_format: EventFormat,
    pub(crate) info: InfoFault,
    pub(crate) disk: DiskFault,
    pub(crate) cached_reads: bool,
}

/// The settings, shared by a node's incarnations, and the signal that they or other state of the
/// node have changed.
#[derive(Debug)]
pub(crate) struct Faults {
    settings: Mutex<Settings>,
    signal: Arc<Signal>,
}

impl Faults {
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self { settings: Mutex::default(), signal }
    }

    /// A copy of the present settings.
    pub(crate) fn now(&self) -> Settings {
        locked(&self.settings).clone()
    }

    /// Reads from the settings without copying them.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&locked(&self.settings))
    }

    /// Changes the settings and wakes all waiting threads.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut locked(&self.settings));
        self.signal.bump();
    }

    /// Whether the link to `peer` is cut.
    pub(crate) fn silent(&self, peer: &str) -> bool {
        self.with(|settings| settings.frozen || settings.cut.contains(peer))
    }

    /// Consumes the request to drop the next commit, if there is one.
    pub(crate) fn take_dropped_commit(&self) -> bool {
        std::mem::take(&mut locked(&self.settings).drop_next_commit)
    }

    /// Consumes the request to forget the next commit, if there is one.
    pub(crate) fn take_forgotten_commit(&self) -> bool {
        let mut settings = locked(&self.settings);
        match settings.forget_after {
            Some(0) => settings.forget_after.take().is_some(),
            Some(left) => {
                settings.forget_after = Some(left - 1);
                false
            }
            None => false,
        }
    }
}
