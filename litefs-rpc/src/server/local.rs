//! Writes of the primary's own process, which take the writer like those of other nodes.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Server;
use super::writer::{Job, Write};
use crate::wire::{Reply, Request, ServerError};

impl Server {
    /// Runs one autocommit write as if another node had sent it. If the writer is idle it works on the calling thread,
    /// otherwise the write shares a commit with those that wait as well. Blocks, at most until `deadline`.
    ///
    /// # Errors
    /// Those of a forwarded write. [`ServerError::Unconfirmed`] if it has not been answered in time.
    pub fn write(&self, request: Request, deadline: Instant) -> Result<Reply, ServerError> {
        self.node.config.limits.check(&request.work)?;
        let (respond, response) = oneshot::channel();
        self.node.queue.run_or_push(Job::Write(Write { request, deadline, respond }))?;
        match block_until(deadline, response) {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(ServerError::Unconfirmed { reason: "the writer ended".into() }),
            None => Err(ServerError::Unconfirmed { reason: "the writer has not answered in time".into() }),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks on a future that needs no runtime. `None` at the deadline.
pub(super) fn block_until<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}
