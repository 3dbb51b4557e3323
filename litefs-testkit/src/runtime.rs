//! A tokio runtime on a thread of its own, for servers that tests start from anywhere.

use std::future::Future;
use std::net::TcpListener;

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// A runtime with one worker thread. Dropping it ends its tasks wherever they are, so that their
/// connections break; it waits for none of them.
#[derive(Debug)]
pub(crate) struct ServerRuntime(Option<Runtime>);

impl ServerRuntime {
    /// Makes the runtime, registers `listener` with it and runs the server that `serve` makes of
    /// it.
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
