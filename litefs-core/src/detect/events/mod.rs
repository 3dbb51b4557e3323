//! LiteFS's event stream: `GET /events`.

mod connection;
mod lines;
mod parse;
mod skipped;

use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Client;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Detector, Sink};
use crate::sync::lock;
use crate::{Backoff, Config, Observation};
use connection::{Connection, StreamError};
pub use parse::{Event, EventError, parse_event};
use skipped::Skipped;

/// Follows the event stream: authoritative while connected, silent while nothing happens.
///
/// LiteFS sends no heartbeat and cannot resume a stream, so a silence is confirmed and a new
/// connection begins with reading the position.
#[derive(Debug)]
pub(crate) struct EventsDetector {
    client: Client,
    url: String,
    skipped: Mutex<Skipped>,
}

impl EventsDetector {
    /// Its [`Detector::name`].
    pub(crate) const NAME: &str = "events";

    pub(crate) fn new(client: Client, config: &Config) -> Self {
        Self { client, url: format!("{}/events", config.http_url()), skipped: Mutex::default() }
    }

    /// Connects again and again.
    async fn follow(&self, sink: &Sink) {
        sink.litefs_seen().await;
        let config = sink.config();
        let mut backoff = Backoff::new(config.reconnect_min(), config.reconnect_max());
        loop {
            let begin = Instant::now();
            let error = self.session(sink).await;
            sink.report(Observation::StreamLost);
            sink.failing(error);
            // A stream that ends as soon as it begins is no success, however often it can be had.
            if begin.elapsed() >= backoff.max() {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Follows one stream until it is lost.
    async fn session(&self, sink: &Sink) -> StreamError {
        let mut connection = match self.connect(sink).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        loop {
            match timeout(sink.config().quiet_after(), connection.next()).await {
                Ok(Ok(message)) => self.handle(sink, &message),
                Ok(Err(error)) => return error,
                Err(_quiet) if confirmed(sink).await => {}
                // What the old connection said stands until the new one has spoken or failed: an
                // idle cluster must not lose its primary with each silence.
                Err(_quiet) => match self.connect(sink).await {
                    Ok(fresh) => connection = fresh,
                    Err(error) => return error,
                },
            }
        }
    }

    /// Opens a stream and takes in its first message, which LiteFS sends at once.
    async fn connect(&self, sink: &Sink) -> Result<Connection, StreamError> {
        let opened = timeout(sink.config().http_timeout(), async {
            let mut connection = Connection::open(&self.client, &self.url).await?;
            let first = connection.next().await?;
            Ok::<_, StreamError>((connection, first))
        });
        let (connection, first) = opened.await.map_err(|_| StreamError::Timeout)??;
        self.handle(sink, &first);
        sink.working();
        let state = sink.state();
        // LiteFS does not repeat events that happened while the stream was down.
        state.positions.refresh_soon();
        state.info.request();
        Ok(connection)
    }

    /// Reports what a message says. One that makes no sense is skipped: the next may.
    fn handle(&self, sink: &Sink, message: &[u8]) {
        match parse_event(message) {
            Ok(Some(Event::Role(claim))) => sink.report(Observation::Stream(claim)),
            Ok(Some(Event::Transaction { database, position })) => {
                sink.report(Observation::Transaction { database, position });
            }
            Ok(None) => {}
            Err(error) => self.skip(message, &error),
        }
    }

    fn skip(&self, message: &[u8], error: &EventError) {
        if let Some(skipped) = lock(&self.skipped).add(Instant::now()) {
            let start = &message[..message.len().min(200)];
            let message = String::from_utf8_lossy(start);
            tracing::warn!(
                %error,
                %message,
                skipped,
                "malformed events skipped since the last warning"
            );
        }
    }
}

/// Whether `/info` answers and does not contradict what the silent stream said last.
async fn confirmed(sink: &Sink) -> bool {
    sink.state().info.confirm().await && sink.state().stream_is_current()
}

impl Detector for EventsDetector {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(self: Box<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.follow(&sink) => {}
            }
        }
        .boxed()
    }
}
