//! Starts a node, once per database and process.

use std::sync::Arc;

use diesel::result::{ConnectionError, ConnectionResult};
use litefs_core::{DatabaseUrl, Mount, MountError, RoleKind, Tracker};

use super::io_thread::IoThread;
use super::{Node, registry};
use crate::options::{LiteFsBuilder, Options, StartError};

impl Node {
    /// Starts tracking and, where LiteFS is, serving. Blocks until this node's role is known.
    pub(crate) fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let database = options.config.database().to_owned();
        if registry::find(&database).is_some() {
            return Err(StartError::AlreadyStarted(database));
        }
        let io = IoThread::start(options.config.database_name())
            .map_err(|error| StartError::Thread(error.to_string()))?;
        let ended = || StartError::Thread("it ended".into());
        let tracker = io.wait(Tracker::start(options.config.clone())).ok_or_else(ended)??;
        let node = Arc::new(Node::new(options, tracker, io));
        if node.options.serve && node.tracker.stamp().kind() != RoleKind::Standalone {
            let starting = node.starter().start();
            node.io.wait(starting).ok_or_else(ended)??;
        }
        node.spawn_tasks();
        if !registry::enter(&database, &node) {
            return Err(StartError::AlreadyStarted(database));
        }
        Ok(node)
    }

    /// The node for a database URL: the one that this process has started, else a new one with the
    /// options of the environment. `None` without LiteFS.
    pub(crate) fn for_url(url: &DatabaseUrl) -> ConnectionResult<Option<Arc<Self>>> {
        if let Some(node) = registry::find(url.path()) {
            return Ok(Some(node));
        }
        if !is_litefs(&Mount::new(url.path())) {
            return Ok(None);
        }
        match LiteFsBuilder::new(&url.to_string()).from_env().build().and_then(Self::start) {
            Ok(node) => Ok(Some(node)),
            // Another thread has started it meanwhile.
            Err(StartError::AlreadyStarted(path)) => Ok(registry::find(&path)),
            Err(StartError::Config(error)) => {
                Err(ConnectionError::InvalidConnectionUrl(error.to_string()))
            }
            Err(error) => Err(ConnectionError::BadConnection(error.to_string())),
        }
    }
}

/// Whether the database is on a mount of LiteFS, served or not. LiteFS always has `.lag`.
fn is_litefs(mount: &Mount) -> bool {
    matches!(mount.read_lag(), Ok(Some(_)) | Err(MountError::NotConnected(_)))
        || matches!(mount.read_primary(), Ok(Some(_)))
}
