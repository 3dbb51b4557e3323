//! Taking writes of the other nodes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use diesel::connection::{
    Connection, InstrumentationEvent, SimpleConnection, get_default_instrumentation,
};
use diesel::result::{ConnectionError, ConnectionResult};
use litefs_core::{Role, RoleKind, Tracker};
use litefs_rpc::server::{ServeError, Server, ServerConfig};
use litefs_rpc::sqlite::{Checkpointer, Opened, SqliteExecutor};

use crate::options::ConnectionHook;

/// How long a connection waits for a lock, in milliseconds, unless the application sets another
/// `busy_timeout`. SQLite's default is not to wait, but on a replica LiteFS itself takes all locks
/// for each transaction that it applies, and a read that met it would fail.
const BUSY_TIMEOUT: u32 = 5_000;

/// `checkpointed`: checkpoints are run by a thread of this process.
pub(super) fn open(
    url: &str,
    hook: Option<&ConnectionHook>,
    checkpointed: bool,
) -> ConnectionResult<Opened> {
    let mut opened = Opened::establish(url)?;
    let connection = &mut opened.connection;
    // The default instrumentation is the user's: it hears the hook, which is the user's too, and
    // not us.
    connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let prepared = connection.batch_execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT}"));
    let prepared = prepared.and_then(|()| {
        // Before the hook, which has the last word.
        if checkpointed { Checkpointer::take_over(connection) } else { Ok(()) }
    });
    connection.set_instrumentation(get_default_instrumentation());
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

/// Everything that starting the server needs, apart from the handle.
pub(super) struct ServerStarter {
    pub(super) tracker: Tracker,
    pub(super) address: SocketAddr,
    pub(super) config: ServerConfig,
    pub(super) database_url: String,
    pub(super) hook: Option<ConnectionHook>,
    pub(super) retention: Duration,
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

/// LiteFS may be mounted after the application started.
pub(super) async fn serve_when_litefs_appears(starter: ServerStarter) {
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
