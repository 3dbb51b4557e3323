//! Bodies of responses: bytes, or the event stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::events::Delivery;
use crate::faults::EventFormat;

/// The body of a response.
#[derive(Debug)]
pub(super) enum Body {
    /// These bytes.
    Full(Option<Bytes>),
    /// Events as they arrive, each flushed separately.
    Events { receiver: mpsc::Receiver<Delivery>, format: EventFormat },
}

impl Body {
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }
}

fn framed(json: &Bytes, format: EventFormat) -> Bytes {
    match format {
        EventFormat::JsonLines => [json, &b"\n"[..]].concat().into(),
        EventFormat::ServerSentEvents => [b"data: ", &json[..], b"\n\n"].concat().into(),
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events { receiver, format } => {
                receiver.poll_recv(cx).map(|delivery| match delivery? {
                    Delivery::Json(json) => Some(Ok(Frame::data(framed(&json, *format)))),
                    // The server then closes the socket without the last, empty chunk.
                    Delivery::Cut => Some(Err(io::ErrorKind::ConnectionAborted.into())),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Events { .. } => SizeHint::default(),
        }
    }
}
