//! Opens SQLite connections to this node's file.

use diesel::result::{ConnectionError, ConnectionResult, DatabaseErrorKind, Error as DieselError};
use litefs_core::{Presence, Role, RoleKind, Txid};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::sqlite::Opened;

use super::Node;
use super::diagnosis::explained;
use super::sqlite::{open, read_positions};
use crate::error::mount_lost;

impl Node {
    /// Opens a SQLite connection to `url`, the database's or one within it, and runs the hook on
    /// it. Blocks.
    pub(crate) fn open(&self, url: &str) -> ConnectionResult<Opened> {
        self.check_mounted()?;
        self.await_first_replication()?;
        let checkpointed = self.checkpointer.get().is_some();
        let opened = open(url, self.options.on_connection.as_ref(), checkpointed);
        let opened = opened.map_err(|error| self.explain(error))?;
        opened.native.read_positions_by(read_positions(self.tracker.clone()));
        Ok(opened)
    }

    fn check_mounted(&self) -> ConnectionResult<()> {
        match self.tracker.presence() {
            Presence::Lost => Err(ConnectionError::CouldntSetupConfiguration(mount_lost())),
            _ => Ok(()),
        }
    }

    /// Explains an error as that of a statement is explained.
    fn explain(&self, error: ConnectionError) -> ConnectionError {
        let explain = |error| ConnectionError::CouldntSetupConfiguration(explained(self, error));
        match error {
            _ if self.tracker.stamp().kind() == RoleKind::Standalone => error,
            ConnectionError::CouldntSetupConfiguration(error) => explain(error),
            ConnectionError::BadConnection(message)
                if Symptom::of(&message) != Symptom::Statement =>
            {
                explain(DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message)))
            }
            error => error,
        }
    }

    /// Opening a database creates it, which only the primary may do: on a replica LiteFS refuses,
    /// and keeps an empty directory of that name. A replica that has just joined waits for the file
    /// instead, up to `primary_timeout`.
    fn await_first_replication(&self) -> ConnectionResult<()> {
        let config = &self.options.config;
        let missing = || {
            let elsewhere =
                matches!(self.tracker.stamp().kind(), RoleKind::Replica | RoleKind::Unknown);
            elsewhere && !config.database().exists()
        };
        if !missing() {
            return Ok(());
        }
        let (tracker, timeout) = (self.tracker.clone(), self.options.primary_timeout);
        self.io.wait(async move {
            let deadline = tokio::time::Instant::now() + timeout;
            let mut roles = tracker.subscribe();
            let writable =
                roles.wait_for(|state| matches!(state.role, Role::Primary | Role::Standalone));
            tokio::select! {
                _ = tracker.wait_for_txid(Txid::new(1), deadline) => {}
                _ = writable => {}
            }
        });
        if missing() {
            let tracker = self.tracker.clone();
            self.io.wait(async move { tracker.confirm().await });
            self.check_mounted()?;
            let message = format!(
                "the database {} does not exist on this replica, and none was replicated within \
                 {timeout:?}: start a node that becomes the primary first",
                config.database().display()
            );
            return Err(ConnectionError::BadConnection(message));
        }
        Ok(())
    }
}
