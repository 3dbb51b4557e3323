//! The HTTP client for LiteFS.

use reqwest::{Client, redirect};

use crate::Config;

/// A client for the LiteFS beside us: no proxy, no redirects.
pub(crate) fn client(config: &Config) -> reqwest::Result<Client> {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(config.http_timeout())
        .build()
}

/// An error with its causes: reqwest's own message leaves out what matters, such as "connection
/// refused".
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
