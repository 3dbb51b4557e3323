//! Whether LiteFS was mounted again since a connection was opened.
//!
//! A mount ends with its LiteFS, but a file that is open stays open. SQLite continues to read what
//! it has cached or mapped, without an error, while `-pos` already comes from the next mount. Each
//! mount is a device of its own, and the kernel does not reuse its number while one of its files is
//! open (`fs/super.c`, `get_anon_bdev`).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use diesel::result::QueryResult;
use litefs_core::Presence;

use crate::failure::Failure;
use crate::node::Node;

/// The device of the file that a connection has open.
#[derive(Debug)]
pub(super) struct MountCheck {
    /// `None` where the path led nowhere when the file was opened.
    device: Option<u64>,
    /// LiteFS was mounted again since then.
    left_behind: bool,
}

impl MountCheck {
    pub(super) fn new(node: Option<&Node>) -> Self {
        Self { device: node.and_then(device), left_behind: false }
    }

    /// To be called after each change of the role: LiteFS does not return without one.
    pub(super) fn check(&mut self, node: &Node) -> QueryResult<()> {
        self.left_behind |=
            self.device.is_some() && device(node).is_some_and(|device| self.device != Some(device));
        if !self.left_behind {
            return Ok(());
        }
        Err(Failure::Remounted.error(
            "LiteFS was mounted again since this connection was opened, and the file that it has \
             open belongs to the mount before: open another connection (a pool does so by itself)",
        ))
    }

    pub(super) fn is_left_behind(&self) -> bool {
        self.left_behind
    }
}

/// The device that the database's path leads to; `None` where it leads nowhere just now.
fn device(node: &Node) -> Option<u64> {
    std::fs::metadata(node.options.config.database()).ok().map(|file| file.dev())
}

/// Whether LiteFS serves the mount. A dead mount fails with an error of its own before the tracker
/// has noticed.
pub(super) fn is_served(node: &Node) -> bool {
    use ErrorKind::{ConnectionAborted, NotConnected};
    let answers = || {
        let file = std::fs::metadata(node.options.config.database());
        !file.is_err_and(|error| matches!(error.kind(), NotConnected | ConnectionAborted))
    };
    node.tracker.presence() != Presence::Lost && answers()
}

#[cfg(test)]
mod tests;
