//! Asking LiteFS to make this node the primary.

use reqwest::StatusCode;

use super::Tracker;
use crate::detect::http;

/// Why LiteFS does not make this node the primary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// LiteFS's HTTP API cannot be reached.
    #[error("LiteFS cannot be asked: {0}")]
    Http(String),
    /// It refuses: the node is no candidate, or there is no primary to take over from.
    #[error("LiteFS says no ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// LiteFS's words.
        message: String,
    },
}

impl Tracker {
    /// Asks the LiteFS beside us for the primary's place (`POST /promote`), at most for
    /// [`http_timeout`](crate::ConfigBuilder::http_timeout). LiteFS answers before it is done:
    /// wait for that with [`wait_for_role`](Self::wait_for_role).
    ///
    /// LiteFS does not wait for writes in progress and loses some of them: stop all writes before.
    ///
    /// # Errors
    ///
    /// [`PromoteError`].
    pub async fn promote(&self) -> Result<(), PromoteError> {
        let failed = |error: reqwest::Error| PromoteError::Http(http::explain(&error));
        let config = self.config();
        let client = http::client(config).map_err(failed)?;
        let asked =
            client.post(format!("{}/promote", config.http_url())).timeout(config.http_timeout());
        let response = asked.send().await.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let message = response.text().await.unwrap_or_default();
        let message = message.lines().next().unwrap_or_default().chars().take(200).collect();
        Err(PromoteError::Refused { status: status.as_u16(), message })
    }
}
