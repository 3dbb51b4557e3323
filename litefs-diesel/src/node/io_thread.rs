//! The bridge between Diesel's synchronous calls and tokio: a thread that owns the runtime.

use std::future::Future;
use std::sync::Mutex;
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The thread on which everything asynchronous of one handle runs: tracker, client, server.
///
/// Its runtime has one thread, so a request costs one wake-up on each side. Callers block on a
/// plain parker, so they may be inside another runtime.
#[derive(Debug)]
pub(crate) struct IoThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl IoThread {
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name(format!("litefs-io {name}"))
            .spawn(move || runtime.block_on(stopped.cancelled_owned()))?;
        Ok(Self { handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Runs a future on the thread and blocks until it is done. `None` if the thread has stopped.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        pollster::block_on(self.handle.spawn(future)).ok()
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.stop.cancel();
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        // The last handle may be dropped by one of the thread's own tasks; a thread cannot wait for
        // itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
