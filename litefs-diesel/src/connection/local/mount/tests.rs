//! A connection whose mount is replaced.

use super::*;
use crate::handle::LiteFs;
use diesel::connection::SimpleConnection;
use diesel::r2d2::R2D2Connection;

#[test]
fn a_connection_to_a_mount_that_was_replaced_fails_and_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let litefs = LiteFs::builder(dir.path().join("app.db").to_str().unwrap()).start().unwrap();
    let mut conn = litefs.establish().unwrap();
    conn.batch_execute("CREATE TABLE t (x INTEGER)").unwrap();
    let node = conn.remote.node().cloned().unwrap();
    assert_eq!(conn.local.check_mount(&node), Ok(()));
    assert!(conn.ping().is_ok() && !conn.is_broken());
    // What the kernel shows after LiteFS was mounted again: the same path on another device.
    conn.local.mount.device = conn.local.mount.device.map(|device| device + 1);
    conn.local.prepared_for = None;
    let error = conn.ping().unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Remounted), "{error}");
    assert!(conn.is_broken());
    assert!(litefs.establish().unwrap().ping().is_ok(), "a new one is fine");
}
