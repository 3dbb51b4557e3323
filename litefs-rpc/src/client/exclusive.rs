//! Connections that one caller at a time holds and drives on its own thread.
//!
//! A request over the shared [`Connection`] wakes the I/O thread, which writes it, reads the answer
//! and wakes the caller. A caller that waits for its answer anyway can do that itself: it blocks in
//! the socket's `read`, and the answer costs one wake-up instead of three. There are few exclusive
//! connections; a caller that finds none idle uses the shared one.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::blocking::{Blocking, BlockingStream};
use super::connection::{Connection, Greeted, client};
use super::error::CallError;
use super::pool::PooledConnection;
use crate::limits::Limits;
use crate::transport;

/// A connection of one caller, for as long as the caller holds it. Dropped, it is closed, and an
/// open transaction on it is rolled back. [`release`](Self::release) keeps it for the next caller.
pub struct ExclusiveConnection {
    connection: Arc<Connection>,
    pooled: PooledConnection,
    broken: bool,
}

impl Connection {
    /// Takes an idle connection for this caller alone, if there is one. It is closed together with
    /// this one. Does not block.
    #[must_use]
    pub fn exclusive(&self) -> Option<ExclusiveConnection> {
        let pooled = self.pool().take()?;
        let connection = Arc::new(self.over(pooled.rpc.clone()));
        Some(ExclusiveConnection { connection, pooled, broken: false })
    }

    /// Adds another connection to the same server, on which the handshake is done, to the pool.
    pub(super) fn add_exclusive(
        &self,
        (stream, version): Greeted,
        limits: &Limits,
    ) -> std::io::Result<()> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let socket = stream.try_clone()?;
        let frames = transport::framed(BlockingStream::new(stream), version, limits.frame);
        let (rpc, dispatch) = client(Blocking::new(frames), limits);
        self.pool().add(socket, (rpc, Box::pin(dispatch)))
    }
}

impl ExclusiveConnection {
    /// Makes a call. Blocks until it is answered, at most until `deadline`.
    ///
    /// # Errors
    /// Those of the call, see [`CallError`]. After [`CallError::Lost`] or [`CallError::Deadline`]
    /// the connection is broken.
    pub fn wait<T, Call>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(Arc<Connection>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let started = Instant::now();
        self.set_timeout(deadline.saturating_duration_since(started));
        // tarpc's deadlines need a tokio timer.
        let runtime = self.pooled.runtime.clone();
        let _entered = runtime.enter();
        let mut call = std::pin::pin!(call(Arc::clone(&self.connection)));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                let lost =
                    matches!(answer, Err(CallError::Lost { .. } | CallError::Deadline { .. }));
                self.broken |= lost;
                return match answer {
                    Err(CallError::Lost { address, .. }) if Instant::now() >= deadline => {
                        Err(CallError::Deadline { address, after: started.elapsed() })
                    }
                    answer => answer,
                };
            }
            if self.broken {
                // The dispatch answers every call before it ends, so this is never reached.
                let address = self.connection.address().into();
                let reason = "the connection ended without an answer".into();
                return Err(CallError::Lost { address, reason });
            }
            self.broken = self.pooled.dispatch.as_mut().poll(&mut context).is_ready();
        }
    }

    fn set_timeout(&self, left: Duration) {
        let (socket, left) = (&self.pooled.socket, left.max(Duration::from_millis(1)));
        // Fails only for a duration of zero.
        let _ = socket.set_read_timeout(Some(left)).and(socket.set_write_timeout(Some(left)));
    }

    /// Returns the connection to the pool. No transaction may be open on it.
    pub fn release(self) {
        if !self.broken {
            self.connection.pool().put_back(self.pooled);
        }
    }
}

impl std::fmt::Debug for ExclusiveConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExclusiveConnection")
            .field("address", &self.connection.address())
            .field("number", &self.pooled.registration.number)
            .finish()
    }
}
