//! Access to nodes that may be in other processes.

use std::time::{Duration, Instant};

use crate::command::{Answer, Command};
use crate::error::Error;
use crate::http::COMMAND_PATH;

/// How long a node of another process may take to execute a command.
const REMOTE_LIMIT: Duration = Duration::from_secs(30);
/// The interval at which conditions on remote nodes are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Sends a command to the node at `url`. Blocks until it is executed.
pub(crate) fn post(url: &str, command: &Command) -> Result<Answer, Error> {
    let failed = |reason: String| Error::Remote { url: url.to_owned(), reason };
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(REMOTE_LIMIT))
        .http_status_as_error(false);
    let body = serde_json::to_vec(command).map_err(|error| failed(error.to_string()))?;
    let agent = config.build().new_agent();
    let mut response = agent
        .post(format!("{url}{COMMAND_PATH}"))
        .send(&body[..])
        .map_err(|error| failed(error.to_string()))?;
    let text = response.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
    if response.status() != 200 {
        return Err(failed(text.trim_end().to_owned()));
    }
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Blocks until `condition` holds, for at most `timeout`.
pub(crate) fn wait_for(
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<(), Error> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() >= timeout {
            return Err(Error::Timeout { waited: timeout, what: what.to_owned() });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
