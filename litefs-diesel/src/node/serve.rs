//! Starts the server that takes writes of other nodes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use diesel::connection::{Connection, InstrumentationEvent};
use litefs_core::{Role, Tracker};
use litefs_rpc::server::{ServeError, Server, ServerConfig};
use litefs_rpc::sqlite::{Checkpointer, Procedures, SqliteExecutor};

use super::sqlite::{open, read_positions};
use crate::options::ConnectionHook;

/// Everything that starting the server needs, apart from the handle.
pub(super) struct ServerStarter {
    pub(super) tracker: Tracker,
    pub(super) address: SocketAddr,
    pub(super) config: ServerConfig,
    pub(super) database_url: String,
    pub(super) hook: Option<ConnectionHook>,
    pub(super) retention: Duration,
    pub(super) procedures: Arc<Procedures>,
    pub(super) server: Arc<Mutex<Option<Arc<Server>>>>,
    pub(super) checkpointer: Arc<OnceLock<Arc<Checkpointer>>>,
}

impl ServerStarter {
    pub(super) async fn start(self) -> Result<(), ServeError> {
        let opening = || {
            let (url, hook) = (self.database_url.clone(), self.hook.clone());
            move || {
                let mut opened = open(&url, hook.as_ref(), true)?;
                opened.connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
                Ok(opened)
            }
        };
        let positions = self.tracker.clone();
        let checkpointer =
            Arc::new(Checkpointer::start(Box::new(opening())).map_err(ServeError::Thread)?);
        let executor = SqliteExecutor::new(Box::new(opening()), self.config.limits.max_rows())
            .retention(self.retention)
            .procedures(self.procedures)
            .reading_beside(Arc::new(opening()))
            .positions(Arc::new(read_positions(positions)))
            .checkpointer(Arc::clone(&checkpointer));
        let server =
            Server::start(self.address, self.config, Arc::new(self.tracker), executor).await?;
        tracing::info!(address = %server.address(), "taking forwarded writes");
        // A server is started once.
        let _ = self.checkpointer.set(checkpointer);
        *self.server.lock().expect("no code panics while it holds the server") =
            Some(Arc::new(server));
        Ok(())
    }
}

/// Starts the server once LiteFS is there: it may be mounted after the application has started.
pub(super) async fn serve_once_mounted(starter: ServerStarter) {
    let mut roles = starter.tracker.subscribe();
    while roles.borrow_and_update().role == Role::Standalone {
        if roles.changed().await.is_err() {
            return;
        }
    }
    let running = starter.server.lock().is_ok_and(|server| server.is_some());
    if !running && let Err(error) = starter.start().await {
        tracing::error!(%error, "cannot take forwarded writes");
    }
}
