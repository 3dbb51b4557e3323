//! Whether LiteFS was mounted again since a connection was opened.
//!
//! A LiteFS that dies takes its mount with it, but an open file stays what it was: SQLite goes on
//! reading what it has cached or mapped, without an error, while `-pos` already comes from the next
//! mount. Each mount is a device of its own, whose number the kernel does not give away while one
//! of its files is open (`fs/super.c`, `get_anon_bdev`).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use diesel::result::QueryResult;
use litefs_core::Presence;

use super::LiteFsConnection;
use crate::Failure;
use crate::node::Node;

/// The device that a path leads to; `None` where it leads nowhere just now.
pub(super) fn device(node: &Node) -> Option<u64> {
    std::fs::metadata(node.options.config.database()).ok().map(|file| file.dev())
}

/// Whether LiteFS serves the mount. A dead one says so itself, before the tracker has looked.
pub(super) fn is_served(node: &Node) -> bool {
    let answers = || {
        !matches!(
            std::fs::metadata(node.options.config.database()),
            Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::ConnectionAborted)
        )
    };
    node.tracker.presence() != Presence::Lost && answers()
}

impl LiteFsConnection {
    /// Whether the path leads to another mount than the one that this connection's file is on.
    fn is_left_behind(&self, node: &Node) -> bool {
        self.device.is_some() && device(node).is_some_and(|device| self.device != Some(device))
    }

    /// To be asked after each change of the role: LiteFS does not come back without one.
    pub(super) fn check_mount(&mut self, node: &Node) -> QueryResult<()> {
        self.left_behind |= self.is_left_behind(node);
        if !self.left_behind {
            return Ok(());
        }
        Err(Failure::Remounted.error(
            "LiteFS was mounted again since this connection was opened, and the file that it has open belongs to the mount \
             before: open another connection (a pool does so by itself)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LiteFs;
    use diesel::connection::SimpleConnection;
    use diesel::r2d2::R2D2Connection;

    #[test]
    fn a_connection_to_a_mount_that_was_replaced_fails_and_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let litefs = LiteFs::builder(dir.path().join("app.db").to_str().unwrap()).start().unwrap();
        let mut conn = litefs.establish().unwrap();
        conn.batch_execute("CREATE TABLE t (x INTEGER)").unwrap();
        let home = conn.home.clone().unwrap();
        assert_eq!(conn.check_mount(&home), Ok(()));
        assert!(conn.ping().is_ok() && !conn.is_broken());
        // What the kernel shows after LiteFS was mounted again: the same path on another device.
        conn.device = conn.device.map(|device| device + 1);
        conn.seen = None;
        let error = conn.ping().unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::Remounted), "{error}");
        assert!(conn.is_broken());
        assert!(litefs.establish().unwrap().ping().is_ok(), "a new one is fine");
    }
}
