//! The pool of exclusive connections beside one shared connection.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::Handle;

use crate::service::ForwardClient;

pub(super) type Dispatch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connections that no caller holds, and the sockets of all.
#[derive(Default)]
pub(super) struct Pool(Mutex<Table>);

#[derive(Default)]
struct Table {
    idle: Vec<PooledConnection>,
    /// A handle of each socket, to shut it down while a caller blocks on it.
    open: HashMap<u64, TcpStream>,
    last_number: u64,
    opening: bool,
    /// The shared connection is closed, or the server accepts no more connections.
    closed: bool,
}

/// A connection that one caller drives.
pub(super) struct PooledConnection {
    pub(super) rpc: ForwardClient,
    pub(super) dispatch: Dispatch,
    pub(super) socket: TcpStream,
    pub(super) runtime: Handle,
    pub(super) registration: Registration,
}

/// An entry of the table of sockets; removes it when dropped.
pub(super) struct Registration {
    pool: Arc<Pool>,
    pub(super) number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.pool.table().open.remove(&self.number);
    }
}

impl Pool {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no code panics while it holds the pool")
    }

    /// Takes an idle connection. Under contention this does not block and returns `None`: the
    /// caller uses the shared connection.
    pub(super) fn take(&self) -> Option<PooledConnection> {
        self.0.try_lock().ok()?.idle.pop()
    }

    /// Whether another connection would be of use. A caller that gets `true` opens it.
    pub(super) fn wants_one(&self, limit: usize) -> bool {
        let Ok(mut table) = self.0.try_lock() else { return false };
        let wants = !table.closed && !table.opening && table.open.len() < limit;
        table.opening |= wants;
        wants
    }

    /// Opens no further connections: an attempt has failed.
    pub(super) fn give_up(&self) {
        self.table().closed = true;
    }

    /// Closes all connections. A caller that blocks on one gets an error.
    pub(super) fn close(&self) {
        let idle = {
            let mut table = self.table();
            table.closed = true;
            for socket in table.open.values() {
                // Fails only if the peer has closed it.
                let _ = socket.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut table.idle)
        };
        // Outside of the lock: each removes itself from the table.
        drop(idle);
    }

    /// Adds a connection, unless the pool is closed.
    pub(super) fn add(
        self: &Arc<Self>,
        socket: TcpStream,
        (rpc, dispatch): (ForwardClient, Dispatch),
    ) -> std::io::Result<()> {
        let handle = socket.try_clone()?;
        let mut table = self.table();
        table.opening = false;
        if table.closed {
            return Ok(());
        }
        table.last_number += 1;
        let number = table.last_number;
        table.open.insert(number, handle);
        let registration = Registration { pool: Arc::clone(self), number };
        let runtime = Handle::current();
        table.idle.push(PooledConnection { rpc, dispatch, socket, runtime, registration });
        Ok(())
    }

    /// Takes a connection back, or closes it if the pool is closed.
    pub(super) fn put_back(&self, connection: PooledConnection) {
        let mut table = self.table();
        if table.closed {
            // Outside of the lock: it removes itself from the table.
            drop(table);
            drop(connection);
        } else {
            table.idle.push(connection);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("open", &self.table().open.len()).finish_non_exhaustive()
    }
}
