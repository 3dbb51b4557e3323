//! A node, accessed over HTTP.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::arguments::NodeAt;
use crate::problem::Problem;
use crate::wire::{Info, New, Row, Status, txid_of};

/// Longer than any timeout of the library, so that the library's own timeouts take effect.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Rows per page when all rows are read; the most that the application returns.
const PAGE: usize = 1_000;

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Applied. The position is that of the write or a later one.
    Acknowledged { row: Option<Row>, txid: Option<u64>, answered: Instant },
    /// Certainly not applied.
    Refused(String),
    /// Applied or not.
    Unknown(String),
}

impl Outcome {
    /// The row of an acknowledgement.
    pub(crate) fn row(self) -> Result<Row, Problem> {
        match self {
            Self::Acknowledged { row: Some(row), .. } => Ok(row),
            other => Err(format!("{other:?} instead of a row").into()),
        }
    }

    pub(crate) fn acknowledged(self) -> Result<(), Problem> {
        match self {
            Self::Acknowledged { .. } => Ok(()),
            other => Err(format!("{other:?} instead of an acknowledgement").into()),
        }
    }
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    at: NodeAt,
    http: reqwest::Client,
}

impl Node {
    pub(crate) fn new(at: NodeAt) -> Result<Self, Problem> {
        let http = reqwest::Client::builder().tcp_nodelay(true).timeout(REQUEST_LIMIT).build()?;
        Ok(Self { at, http })
    }

    pub(crate) fn name(&self) -> &str {
        &self.at.name
    }

    /// The application's status.
    pub(crate) async fn status(&self) -> Result<Status, Problem> {
        self.json(self.http.get(format!("{}/status", self.at.application))).await
    }

    /// LiteFS's status.
    pub(crate) async fn info(&self) -> Result<Info, Problem> {
        self.json(self.http.get(format!("{}/info", self.at.litefs))).await
    }

    /// The row and whether it was stored (rather than downloaded for this request); `None` if there
    /// is none.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<(Row, bool)>, Problem> {
        let response = self.request(Method::GET, &format!("/resources/{id}")).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status()?;
        let stored = response.headers().get("x-stored").is_some_and(|stored| stored == "yes");
        Ok(Some((response.json().await?, stored)))
    }

    /// Every row, ordered by id.
    pub(crate) async fn rows(&self) -> Result<Vec<Row>, Problem> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let mut query = vec![("limit", PAGE.to_string())];
            query.extend(rows.last().map(|row| ("after", row.id.clone())));
            let next: Vec<Row> =
                self.json(self.request(Method::GET, "/resources").query(&query)).await?;
            let is_last = next.len() < PAGE;
            rows.extend(next);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// The first few rows.
    pub(crate) async fn read_some(&self) -> Result<Vec<Row>, Problem> {
        self.json(self.request(Method::GET, "/resources").query(&[("limit", "5")])).await
    }

    pub(crate) async fn post(&self, new: &New) -> Outcome {
        self.write(self.request(Method::POST, "/resources").json(new)).await
    }

    /// Sets the number in a row.
    pub(crate) async fn set(&self, id: &str, number: u32) -> Outcome {
        let changes = serde_json::json!({ "latitude": number });
        self.write(self.request(Method::PATCH, &format!("/resources/{id}")).json(&changes)).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Outcome {
        self.write(self.request(Method::DELETE, &format!("/resources/{id}"))).await
    }

    /// Inserts all rows in one transaction, or none.
    pub(crate) async fn import(&self, rows: &[Row]) -> Outcome {
        self.write(self.request(Method::POST, "/import").json(rows)).await
    }

    /// Asks the application on the primary for a handoff to the most advanced replica.
    pub(crate) async fn handoff(&self) -> Result<(), Problem> {
        let response = self.request(Method::POST, "/handoff").send().await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{status}: {}", response.text().await?).into())
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.at.application))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        let told = |error: reqwest::Error| format!("{}: {error}", self.at.name);
        let response =
            request.send().await.and_then(reqwest::Response::error_for_status).map_err(told)?;
        Ok(response.json().await.map_err(told)?)
    }

    async fn write(&self, request: RequestBuilder) -> Outcome {
        match request.send().await {
            // Without a connection no request was sent.
            Err(error) if error.is_connect() => Outcome::Refused(error.to_string()),
            Err(error) => Outcome::Unknown(error.to_string()),
            Ok(response) => {
                let status = response.status();
                let position =
                    response.headers().get("x-position").and_then(|text| text.to_str().ok());
                let txid = position.and_then(txid_of);
                match response.bytes().await {
                    Ok(body) => judge(status, txid, &body),
                    Err(error) if status.is_success() => {
                        Outcome::Unknown(format!("{status}, and then {error}"))
                    }
                    Err(_) => judge(status, txid, &[]),
                }
            }
        }
    }
}

/// 503 promises that nothing was applied; after any other 5xx the outcome is unknown.
fn judge(status: StatusCode, txid: Option<u64>, body: &[u8]) -> Outcome {
    let words = || format!("{status}: {}", String::from_utf8_lossy(body).trim_end());
    if status.is_success() {
        return Outcome::Acknowledged {
            row: serde_json::from_slice(body).ok(),
            txid,
            answered: Instant::now(),
        };
    }
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Refused(words()),
        _ if status.is_client_error() => Outcome::Refused(words()),
        _ => Outcome::Unknown(words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_that_promises_no_effect_is_a_refusal() {
        let refused = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            matches!(judge(status, None, b"no"), Outcome::Refused(_))
        };
        assert!(refused(503) && refused(409) && refused(404));
        assert!(!refused(500) && !refused(504) && !refused(502) && !refused(201));
    }
}
