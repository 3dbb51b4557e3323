//! One connection to the event stream, in either of its two formats.

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use reqwest::{Client, Response, StatusCode, header};

use super::lines::{Blocks, Lines, MAX_LINE, TooLong};
use crate::detect::http;

/// Why there is no event stream any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("{0}")]
    Http(String),
    #[error("no first event in time")]
    Timeout,
    #[error("status {0}")]
    Status(u16),
    #[error("LiteFS has ended the stream")]
    Ended,
    #[error("an event is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("the event stream is not UTF-8 or not well formed")]
    Malformed,
}

impl From<reqwest::Error> for StreamError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(http::explain(&error))
    }
}

impl From<TooLong> for StreamError {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}

impl From<EventStreamError<Self>> for StreamError {
    fn from(error: EventStreamError<Self>) -> Self {
        match error {
            EventStreamError::Transport(error) => error,
            EventStreamError::Utf8(_) | EventStreamError::Parser(_) => Self::Malformed,
        }
    }
}

/// Yields one JSON text after the other.
pub(super) struct Connection(BoxStream<'static, Result<Bytes, StreamError>>);

impl Connection {
    pub(super) async fn open(client: &Client, url: &str) -> Result<Self, StreamError> {
        let accept = "application/json, text/event-stream;q=0.9";
        let response = client.get(url).header(header::ACCEPT, accept).send().await?;
        if response.status() != StatusCode::OK {
            return Err(StreamError::Status(response.status().as_u16()));
        }
        Ok(Self(if is_event_source(&response) {
            events(response).boxed()
        } else {
            lines(response).boxed()
        }))
    }

    /// The next message. Cancel safe: nothing is lost if it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Bytes, StreamError> {
        self.0.next().await.unwrap_or(Err(StreamError::Ended))
    }
}

/// LiteFS says `application/json` and sends a line per event; a proxy or a later LiteFS may send
/// server-sent events.
fn is_event_source(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

fn lines(response: Response) -> impl Stream<Item = Result<Bytes, StreamError>> {
    let mut lines = Lines::new(MAX_LINE);
    response.bytes_stream().flat_map(move |chunk| futures::stream::iter(split(&mut lines, chunk)))
}

/// The lines that a chunk completes, and after them the error that ends the stream.
fn split(lines: &mut Lines, chunk: reqwest::Result<Bytes>) -> Vec<Result<Bytes, StreamError>> {
    match chunk {
        Ok(chunk) => lines.push(&chunk),
        Err(error) => return vec![Err(error.into())],
    }
    let mut found = Vec::new();
    loop {
        match lines.next() {
            Ok(Some(line)) => found.push(Ok(line)),
            Ok(None) => return found,
            Err(error) => {
                found.push(Err(error.into()));
                return found;
            }
        }
    }
}

fn events(response: Response) -> impl Stream<Item = Result<Bytes, StreamError>> {
    let mut blocks = Blocks::new(MAX_LINE);
    let checked = response.bytes_stream().map(move |chunk| {
        let chunk = chunk?;
        blocks.check(&chunk)?;
        Ok(chunk)
    });
    let events = checked.eventsource();
    events.map(|event: Result<_, EventStreamError<StreamError>>| Ok(event?.data.into()))
}
