//! Sending requests to the two applications, and the meaning of a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::Problem;
use crate::app::{Page, Resource, STORED};

/// How long a client retries while the response says that nothing was applied.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Rows per page when all rows are read.
const PAGE: usize = 1_000;

/// The result of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The application decided; the status is final.
    Given { status: StatusCode, stored: bool, body: Vec<u8> },
    /// It may or may not have been applied.
    Unknown(String),
}

impl Answer {
    /// The row of an answer with this status.
    pub(super) fn row(&self, expected: StatusCode) -> Option<Resource> {
        match self {
            Self::Given { status, body, .. } if *status == expected => {
                serde_json::from_slice(body).ok()
            }
            _ => None,
        }
    }

    pub(super) fn is(&self, expected: StatusCode) -> bool {
        matches!(self, Self::Given { status, .. } if *status == expected)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// The nodes and the progress of the run, shared by all clients.
pub(super) struct Target {
    http: reqwest::Client,
    urls: [String; 2],
    limit: u64,
    sent: AtomicU64,
    refused: AtomicU64,
    half: Notify,
    progress: ProgressBar,
}

impl Target {
    pub(super) fn new(
        urls: [String; 2],
        limit: u64,
        progress: ProgressBar,
    ) -> Result<Arc<Self>, Problem> {
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .timeout(Duration::from_secs(30))
            .build()?;
        let (sent, refused) = Default::default();
        Ok(Arc::new(Self { http, urls, limit, sent, refused, half: Notify::new(), progress }))
    }

    /// Whether there are requests left to send.
    pub(super) fn goes_on(&self) -> bool {
        self.sent() < self.limit
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many responses said that nothing was applied yet.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Resolves when half of the requests are sent.
    pub(super) async fn half_way(&self) {
        self.half.notified().await;
    }

    pub(super) fn request(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.urls[node]))
    }

    /// Sends a request, and retries it while the application promises that nothing was applied.
    /// Never retries after any other failure: the outcome is unknown.
    pub(super) async fn send(&self, request: RequestBuilder) -> Answer {
        let until = Instant::now() + TIMEOUT;
        loop {
            let Some(attempt) = request.try_clone() else {
                return Answer::Unknown("a request that cannot be repeated".into());
            };
            let answer = self.once(attempt).await;
            let again =
                answer.is(StatusCode::SERVICE_UNAVAILABLE) || answer.is(StatusCode::BAD_GATEWAY);
            match answer {
                answer if again && Instant::now() >= until => {
                    return Answer::Unknown(format!("{answer:?}"));
                }
                _ if again => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                Answer::Given { status, body, .. } if status.is_server_error() => {
                    return Answer::Unknown(format!(
                        "{status}: {}",
                        String::from_utf8_lossy(&body).trim_end()
                    ));
                }
                answer => return answer,
            }
        }
    }

    async fn once(&self, request: RequestBuilder) -> Answer {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        self.progress.set_position(sent.min(self.limit));
        if sent == self.limit / 2 {
            self.half.notify_one();
        }
        let unknown = |error: reqwest::Error| Answer::Unknown(error.to_string());
        match request.send().await {
            Err(error) => unknown(error),
            Ok(response) => {
                let status = response.status();
                let stored = response.headers().get(STORED).is_some_and(|stored| stored == "yes");
                let body = response.bytes().await;
                body.map_or_else(unknown, |body| Answer::Given {
                    status,
                    stored,
                    body: body.to_vec(),
                })
            }
        }
    }

    /// Every row of a node, ordered by id.
    pub(super) async fn all_rows(&self, node: usize) -> Result<Vec<Resource>, Problem> {
        let mut rows: Vec<Resource> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id.clone());
            let page = Page { search: None, after, limit: i64::try_from(PAGE).ok() };
            let request = self.request(node, Method::GET, "/resources").query(&page);
            let next: Vec<Resource> = request.send().await?.error_for_status()?.json().await?;
            let last = next.len() < PAGE;
            rows.extend(next);
            if last {
                return Ok(rows);
            }
        }
    }

    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        node: usize,
        path: &str,
    ) -> Result<T, Problem> {
        Ok(self.request(node, Method::GET, path).send().await?.error_for_status()?.json().await?)
    }
}
