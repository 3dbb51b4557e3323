//! A tokio runtime on its own thread, for servers that tests start from any context.

use std::future::Future;
use std::net::TcpListener;

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// A runtime with one worker thread. Dropping it cancels its tasks, so that their connections
/// break, without waiting for them.
#[derive(Debug)]
pub(crate) struct ServerRuntime(Option<Runtime>);

impl ServerRuntime {
    /// Creates the runtime, registers `listener` with it and runs the server that `serve` makes
    /// from it.
    pub(crate) fn serve<Server>(
        what: &str,
        listener: TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener) -> Server,
    ) -> Result<Self, Error>
    where
        Server: Future<Output = ()> + Send + 'static,
    {
        let failed = || Error::io(format!("start {what}"));
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed())?;
        drop(guard);
        runtime.spawn(serve(listener));
        Ok(Self(Some(runtime)))
    }
}

impl Drop for ServerRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A plain drop would wait, and would panic on a thread of a runtime.
            runtime.shutdown_background();
        }
    }
}
