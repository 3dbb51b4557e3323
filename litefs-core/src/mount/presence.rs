//! Whether there is LiteFS at a mount.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use super::{Mount, MountError, PositionFile};
use crate::sync::lock;

/// Whether LiteFS serves a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// This process has never seen LiteFS here.
    NeverSeen,
    /// LiteFS is here.
    Here,
    /// LiteFS was here: the directory is gone, no longer served, or a plain directory now.
    Lost,
}

/// What one look at the mount directory finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A special file that only LiteFS makes.
    Marker,
    /// A directory without any.
    Plain,
    /// No directory.
    Gone,
    /// A mount point whose LiteFS is dead.
    Dead,
    /// The look failed for a reason that says nothing about LiteFS, such as too many open files.
    Unclear,
}

/// Mounts at which this process has seen LiteFS. Global on purpose: a mount that vanished must not
/// look like a plain directory to a handle that is started later.
static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

pub(crate) fn remember(dir: &Path) {
    lock(&SEEN).insert(dir.to_owned());
}

pub(crate) fn has_been_seen(dir: &Path) -> bool {
    lock(&SEEN).contains(dir)
}

impl Mount {
    /// Looks for LiteFS's special files. `.lag` comes first: LiteFS always has it. Blocks.
    pub(crate) fn probe(&self) -> Probe {
        let lag = self.read_lag().map(|lag| lag.is_some());
        let primary = || self.read_primary().map(|primary| primary.is_some());
        let position = || PositionFile::default().read(self).is_ok();
        match lag.and_then(|found| if found { Ok(true) } else { primary() }) {
            Ok(true) => Probe::Marker,
            Ok(false) if position() => Probe::Marker,
            Ok(false) => Probe::Plain,
            Err(MountError::Gone(_)) => Probe::Gone,
            Err(MountError::NotConnected(_)) => Probe::Dead,
            Err(_) => Probe::Unclear,
        }
    }
}
