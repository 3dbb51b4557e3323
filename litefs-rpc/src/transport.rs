//! Turns a stream into tarpc's transport, with the encoding of the protocol version.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};
use tarpc::serde_transport::{self, Transport};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::ProtocolVersion;

/// Variable-length integers, no trailing bytes, nothing larger than the frame.
pub(crate) fn options(limit: usize) -> impl Options + Clone + Send + Sync + 'static {
    bincode::DefaultOptions::new().with_limit(limit as u64)
}

/// The transport that a connection speaks after the handshake has settled on `version`. No frame is
/// larger than `max_frame` bytes.
pub(crate) fn framed<S, Item, SinkItem>(
    stream: S,
    version: ProtocolVersion,
    max_frame: usize,
) -> Transport<
    S,
    Item,
    SinkItem,
    Bincode<Item, SinkItem, impl Options + Clone + Send + Sync + 'static>,
>
where
    S: AsyncRead + AsyncWrite,
    Item: DeserializeOwned,
    SinkItem: Serialize,
{
    // A later version adds its codec here.
    let (ProtocolVersion::V1 | ProtocolVersion::V2) = version;
    let frames = LengthDelimitedCodec::builder().max_frame_length(max_frame).new_framed(stream);
    serde_transport::new(frames, Bincode::from(options(max_frame)))
}
