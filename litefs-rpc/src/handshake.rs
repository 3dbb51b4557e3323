//! The handshake: version, database and mutual authentication, before the first request.
//!
//! Four frames over a fresh stream: the client's hello (versions, database, nonce), the server's
//! challenge (version, nonce), the client's proof, the server's proof. A proof is an HMAC over both
//! nonces and everything agreed on, so the secret never travels, a recorded handshake cannot be
//! replayed, and neither side talks to one that does not know the secret. The functions are generic
//! over the stream: TLS wraps it beforehand.

use bincode::Options;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use rand::RngCore;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::secret::Secret;
use crate::wire::ProtocolVersion;

/// Identifies the protocol in the first bytes of a connection.
const MAGIC: [u8; 8] = *b"litefsrs";
/// The largest frame of the handshake, in bytes.
const MAX_FRAME: usize = 4_096;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The two builds share no protocol version.
    #[error(
        "protocol version skew: this node speaks {ours_min} to {ours_max}, the peer {theirs_min} \
         to {theirs_max}"
    )]
    VersionSkew {
        /// The oldest version of the refusing side.
        ours_min: u16,
        /// The newest version of the refusing side.
        ours_max: u16,
        /// The oldest version of the other side.
        theirs_min: u16,
        /// The newest version of the other side.
        theirs_max: u16,
    },
    /// The server serves another database.
    #[error("the server serves the database {served:?}, not {asked:?}")]
    WrongDatabase {
        /// What the client asked for.
        asked: String,
        /// What is served there.
        served: String,
    },
    /// The client's proof is wrong or missing.
    #[error("the shared secret is wrong or missing; give both nodes the same one")]
    Unauthenticated,
    /// The server did not prove that it knows the secret.
    #[error(
        "the server did not prove that it knows the shared secret; give both nodes the same one"
    )]
    ServerUnproven,
    /// The server has reached its limit of connections.
    #[error("the server has its limit of {limit} connections")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The peer does not speak this protocol, or closed the connection.
    #[error("the peer did not complete the handshake: {0}")]
    Broken(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    magic: [u8; 8],
    min_version: u16,
    max_version: u16,
    database: String,
    nonce: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
enum Challenge {
    Go { version: u16, nonce: [u8; 32] },
    Refused(HandshakeError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof(Option<[u8; 32]>);

#[derive(Debug, Serialize, Deserialize)]
enum Welcome {
    Come(Proof),
    Refused(HandshakeError),
}

/// What both sides agreed on. The proofs cover it.
struct Terms {
    version: ProtocolVersion,
    database: String,
    client_nonce: [u8; 32],
    server_nonce: [u8; 32],
}

impl Terms {
    fn parts<'a>(&'a self, side: &'a [u8], version: &'a [u8; 2]) -> [&'a [u8]; 6] {
        [
            b"litefs-rpc",
            side,
            version,
            self.database.as_bytes(),
            &self.client_nonce,
            &self.server_nonce,
        ]
    }

    fn prove(&self, secret: Option<&Secret>, side: &[u8]) -> Proof {
        let version = self.version.number().to_be_bytes();
        Proof(secret.map(|secret| secret.prove(&self.parts(side, &version))))
    }

    /// Without a secret on this side every proof is accepted.
    fn accepts(&self, secret: Option<&Secret>, side: &[u8], proof: &Proof) -> bool {
        let version = self.version.number().to_be_bytes();
        match (secret, proof.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(secret), Some(mac)) => secret.verify(&self.parts(side, &version), &mac),
        }
    }
}

const CLIENT: &[u8] = b"client";
const SERVER: &[u8] = b"server";

/// Performs the client's side. On success the stream is ready for requests; the agreed version is
/// returned with it.
///
/// # Errors
/// Any [`HandshakeError`]: the server's refusal or this side's. There is no timeout; the caller
/// sets one.
pub async fn greet<S>(
    stream: S,
    database: &str,
    secret: Option<&Secret>,
) -> Result<(S, ProtocolVersion), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = framed(stream);
    let client_nonce = nonce();
    let hello = Hello {
        magic: MAGIC,
        min_version: ProtocolVersion::OLDEST.number(),
        max_version: ProtocolVersion::NEWEST.number(),
        database: database.into(),
        nonce: client_nonce,
    };
    send(&mut frames, &hello).await?;
    let (version, server_nonce) = match receive(&mut frames).await? {
        Challenge::Go { version, nonce } => {
            let spoken = ProtocolVersion::from_number(version);
            (spoken.ok_or_else(|| version_skew(version, version))?, nonce)
        }
        Challenge::Refused(error) => return Err(error),
    };
    let terms = Terms { version, database: database.into(), client_nonce, server_nonce };
    send(&mut frames, &terms.prove(secret, CLIENT)).await?;
    match receive(&mut frames).await? {
        Welcome::Come(proof) if terms.accepts(secret, SERVER, &proof) => {
            Ok((unframed(frames)?, version))
        }
        Welcome::Come(_) => Err(HandshakeError::ServerUnproven),
        Welcome::Refused(error) => Err(error),
    }
}

/// Performs the server's side. A refusal is sent to the client too.
///
/// # Errors
/// Any [`HandshakeError`]. There is no timeout; the caller sets one.
pub async fn receive_client<S>(
    stream: S,
    database: &str,
    secret: Option<&Secret>,
) -> Result<(S, ProtocolVersion), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = framed(stream);
    let hello: Hello = receive(&mut frames).await?;
    let version = match check(&hello, database) {
        Ok(version) => version,
        Err(error) => {
            send(&mut frames, &Challenge::Refused(error.clone())).await?;
            return Err(error);
        }
    };
    let server_nonce = nonce();
    let version_number = version.number();
    send(&mut frames, &Challenge::Go { version: version_number, nonce: server_nonce }).await?;
    let terms =
        Terms { version, database: database.into(), client_nonce: hello.nonce, server_nonce };
    let proof: Proof = receive(&mut frames).await?;
    if !terms.accepts(secret, CLIENT, &proof) {
        send(&mut frames, &Welcome::Refused(HandshakeError::Unauthenticated)).await?;
        return Err(HandshakeError::Unauthenticated);
    }
    send(&mut frames, &Welcome::Come(terms.prove(secret, SERVER))).await?;
    Ok((unframed(frames)?, version))
}

/// Refuses a client because the server has reached its limit of connections. Reads the client's
/// hello first, so that the client receives the answer.
pub(crate) async fn turn_away<S>(stream: S, limit: usize) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = framed(stream);
    let _: Hello = receive(&mut frames).await?;
    send(&mut frames, &Challenge::Refused(HandshakeError::TooManyConnections { limit })).await
}

/// The highest version that both sides speak, or the reason for a refusal. Pure.
fn check(hello: &Hello, database: &str) -> Result<ProtocolVersion, HandshakeError> {
    if hello.magic != MAGIC {
        return Err(HandshakeError::Broken(
            "these are not the first bytes of a litefs-rpc client".into(),
        ));
    }
    let version = ProtocolVersion::common(hello.min_version, hello.max_version)
        .ok_or_else(|| version_skew(hello.min_version, hello.max_version))?;
    if hello.database != database {
        return Err(HandshakeError::WrongDatabase {
            asked: hello.database.clone(),
            served: database.into(),
        });
    }
    Ok(version)
}

fn version_skew(theirs_min: u16, theirs_max: u16) -> HandshakeError {
    let (ours_min, ours_max) = (ProtocolVersion::OLDEST.number(), ProtocolVersion::NEWEST.number());
    HandshakeError::VersionSkew { ours_min, ours_max, theirs_min, theirs_max }
}

type Frames<S> = Framed<S, LengthDelimitedCodec>;

fn framed<S: AsyncRead + AsyncWrite>(stream: S) -> Frames<S> {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_framed(stream)
}

/// Returns the stream. Bytes after the last frame would be lost, so they are an error; a correct
/// peer sends none before the handshake is complete.
fn unframed<S>(frames: Frames<S>) -> Result<S, HandshakeError> {
    let parts = frames.into_parts();
    if parts.read_buf.is_empty() {
        Ok(parts.io)
    } else {
        Err(HandshakeError::Broken("the peer sent data before the handshake was complete".into()))
    }
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

async fn send<S, T>(frames: &mut Frames<S>, message: &T) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Serialize,
{
    let bytes = options().serialize(message).map_err(broken)?;
    frames.send(Bytes::from(bytes)).await.map_err(broken)
}

async fn receive<S, T>(frames: &mut Frames<S>) -> Result<T, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: DeserializeOwned,
{
    match frames.next().await {
        Some(Ok(frame)) => decode(&frame),
        Some(Err(error)) => Err(broken(error)),
        None => Err(HandshakeError::Broken("the connection was closed".into())),
    }
}

fn decode<T: DeserializeOwned>(frame: &BytesMut) -> Result<T, HandshakeError> {
    options().deserialize(frame).map_err(broken)
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(MAX_FRAME as u64)
}

fn broken(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Broken(error.to_string())
}

#[cfg(test)]
mod tests;
