//! `GET /info`.

use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Detector, Sink, http};
use crate::{
    Claim, Config, InfoAnswer, Mount, NodeName, NodeNameError, Observation, Owner, Presence,
};

/// No answer of LiteFS is longer, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Why `/info` has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InfoError {
    /// No connection, or it broke.
    #[error("{0}")]
    Http(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// The answer does not end.
    #[error("the answer is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// The answer is not LiteFS's JSON.
    #[error("the answer is not what LiteFS sends: {0}")]
    Json(#[from] serde_json::Error),
    /// The primary's host name cannot be one.
    #[error(transparent)]
    Name(#[from] NodeNameError),
}

/// What LiteFS's `/info` says that matters here (LiteFS: `http/server.go`, `handleGetInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// What it says about this node.
    pub claim: Claim,
    /// This node's own name; LiteFS reports it only while this node is the primary.
    pub own_name: Option<NodeName>,
    /// LiteFS's data directory. LiteFS does not report the mount.
    pub path: PathBuf,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "isPrimary")]
    is_primary: bool,
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    primary: Primary,
}

#[derive(Deserialize, Default)]
struct Primary {
    #[serde(default)]
    hostname: String,
}

/// Parses the body of `/info`.
///
/// # Errors
///
/// [`InfoError::Json`] or [`InfoError::Name`].
pub fn parse_info(body: &[u8]) -> Result<Info, InfoError> {
    let body: Body = serde_json::from_slice(body)?;
    let hostname = &body.primary.hostname;
    let own_name =
        if body.is_primary && !hostname.is_empty() { Some(hostname.parse()?) } else { None };
    Ok(Info { claim: Claim::from_litefs(body.is_primary, hostname)?, own_name, path: body.path })
}

/// Asks `/info`: on request, and at intervals while the event stream says nothing about the role.
#[derive(Debug)]
pub(crate) struct InfoDetector {
    client: Client,
    url: String,
}

impl InfoDetector {
    /// Its [`Detector::name`].
    pub(crate) const NAME: &str = "info";

    pub(crate) fn new(client: Client, config: &Config) -> Self {
        Self { client, url: format!("{}/info", config.http_url()) }
    }

    /// Asks once and reports the answer or its absence.
    pub(crate) async fn ask_once(&self, sink: &Sink) {
        let desk = &sink.state().info;
        // Both are drawn before the request leaves: the answer is as old as the question.
        let (number, seq) = (desk.begin(), sink.next_seq());
        let answer = tokio::time::timeout(sink.config().http_timeout(), self.answer(sink)).await;
        let answer = answer.unwrap_or(Err(InfoError::Timeout));
        let answered = answer.is_ok();
        match answer {
            Ok(answer) => {
                sink.working();
                sink.report_at(seq, Observation::Info(answer));
            }
            Err(error) => {
                sink.failing(error);
                sink.report_at(seq, Observation::InfoUnreachable);
            }
        }
        desk.finish(number, answered);
    }

    async fn answer(&self, sink: &Sink) -> Result<InfoAnswer, InfoError> {
        let Info { claim, own_name, path } = self.get().await?;
        let owner = owner(sink.mount().clone(), path).await;
        Ok(InfoAnswer { claim, own_name, owner })
    }

    async fn get(&self) -> Result<Info, InfoError> {
        let failed = |error: reqwest::Error| InfoError::Http(http::explain(&error));
        let mut response = self.client.get(&self.url).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(InfoError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                return Err(InfoError::TooLarge);
            }
        }
        parse_info(&body)
    }

    /// Waits until there is a reason to ask.
    async fn due(&self, sink: &Sink) {
        let state = sink.state();
        let regularly = async {
            loop {
                tokio::time::sleep(sink.config().poll_interval()).await;
                let here = *state.presence.borrow() != Presence::NeverSeen;
                if here && !state.stream_is_current() {
                    return;
                }
            }
        };
        tokio::select! {
            () = state.info.requested() => {}
            () = regularly => {}
        }
    }
}

impl Detector for InfoDetector {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(self: Box<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            let ask = async {
                loop {
                    self.due(&sink).await;
                    self.ask_once(&sink).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = ask => {}
            }
        }
        .boxed()
    }
}

/// Whose `/info` this is, judged by the files: LiteFS reports its data directory and keeps each
/// database `name` of the mount under `dbs/name` in there (LiteFS: `store.go`, `DBPath`).
async fn owner(mount: Mount, path: PathBuf) -> Owner {
    let judged = tokio::task::spawn_blocking(move || owner_of(&mount, &path)).await;
    judged.unwrap_or(Owner::Unclear)
}

fn owner_of(mount: &Mount, path: &Path) -> Owner {
    if path.canonicalize().is_ok_and(|path| path == mount.dir()) {
        return Owner::ThisMount;
    }
    let Some(name) = mount.database().file_name() else { return Owner::Unclear };
    let databases = path.join("dbs");
    let missing = || !databases.join(name).exists();
    // The mount second: a database dropped meanwhile is then missing from both. And the data
    // directory once more: one created meanwhile, as an application does when it starts, is then
    // there.
    let elsewhere = databases.is_dir() && missing() && mount.database().exists() && missing();
    if elsewhere { Owner::OtherMount } else { Owner::Unclear }
}

#[cfg(test)]
mod tests;
