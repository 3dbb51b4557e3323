//! Why a handle did not start.

use litefs_rpc::server::ServeError;

/// Why a handle did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option has a value that cannot work.
    #[error(transparent)]
    Config(#[from] litefs_core::ConfigError),
    /// There is no LiteFS where one is required.
    #[error(transparent)]
    Tracker(#[from] litefs_core::StartError),
    /// The server could not listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// This process has a handle for this database already: use it, or establish connections by
    /// path.
    #[error("this process already has a LiteFs handle for {0}; share it (it is cheap to clone)")]
    AlreadyStarted(std::path::PathBuf),
    /// The I/O thread could not be started, or ended at once.
    #[error("cannot start the I/O thread: {0}")]
    Thread(String),
}
