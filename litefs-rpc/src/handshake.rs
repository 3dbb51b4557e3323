//! What two nodes say to each other before the first request.
//!
//! Four frames over a fresh stream: the client's hello (versions, database, nonce), the server's challenge
//! (version, nonce), the client's proof, the server's proof. A proof is an HMAC over both nonces and everything
//! agreed on, so the secret never travels, a recorded handshake cannot be replayed, and neither side talks to
//! one that does not know the secret. The functions are generic over the stream: TLS wraps it beforehand.

use bincode::Options;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use rand::RngCore;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::secret::Secret;
use crate::wire::ProtocolVersion;

/// Marks the protocol: whatever else connects is told apart at the first bytes.
const MAGIC: [u8; 8] = *b"litefsrs";
/// No frame of the handshake is larger, in bytes.
const MAX_FRAME: usize = 4_096;

/// Why two nodes did not agree to talk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The two builds share no protocol version.
    #[error(
        "protocol version skew: this node speaks {ours_min} to {ours_max}, the peer {theirs_min} to {theirs_max}"
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
    #[error("the server did not prove that it knows the shared secret; give both nodes the same one")]
    ServerUnproven,
    /// The server has no room for another connection.
    #[error("the server has its limit of {limit} connections")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The peer does not speak this protocol, or broke off.
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

/// What both sides agreed on; the proofs cover it.
struct Terms {
    version: ProtocolVersion,
    database: String,
    client_nonce: [u8; 32],
    server_nonce: [u8; 32],
}

impl Terms {
    fn parts<'a>(&'a self, side: &'a [u8], version: &'a [u8; 2]) -> [&'a [u8]; 6] {
        [b"litefs-rpc", side, version, self.database.as_bytes(), &self.client_nonce, &self.server_nonce]
    }

    fn prove(&self, secret: Option<&Secret>, side: &[u8]) -> Proof {
        let version = self.version.number().to_be_bytes();
        Proof(secret.map(|secret| secret.prove(&self.parts(side, &version))))
    }

    /// Without a secret here nothing is asked of the other side.
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

/// Greets a server. On success the stream is ready for requests; the version agreed on is returned with it.
///
/// # Errors
/// Any [`HandshakeError`]: the server's refusal or this side's. There is no time limit here; the caller sets one.
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
        Welcome::Come(proof) if terms.accepts(secret, SERVER, &proof) => Ok((unframed(frames)?, version)),
        Welcome::Come(_) => Err(HandshakeError::ServerUnproven),
        Welcome::Refused(error) => Err(error),
    }
}

/// Answers a client. The refusal, if any, is sent to the client too.
///
/// # Errors
/// Any [`HandshakeError`]. There is no time limit here; the caller sets one.
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
    let terms = Terms { version, database: database.into(), client_nonce: hello.nonce, server_nonce };
    let proof: Proof = receive(&mut frames).await?;
    if !terms.accepts(secret, CLIENT, &proof) {
        send(&mut frames, &Welcome::Refused(HandshakeError::Unauthenticated)).await?;
        return Err(HandshakeError::Unauthenticated);
    }
    send(&mut frames, &Welcome::Come(terms.prove(secret, SERVER))).await?;
    Ok((unframed(frames)?, version))
}

/// Turns a client away because the server is full, reading its hello first so that it sees the answer.
pub(crate) async fn turn_away<S>(stream: S, limit: usize) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = framed(stream);
    let _: Hello = receive(&mut frames).await?;
    send(&mut frames, &Challenge::Refused(HandshakeError::TooManyConnections { limit })).await
}

/// The highest version that both know, or why there is none. Pure.
fn check(hello: &Hello, database: &str) -> Result<ProtocolVersion, HandshakeError> {
    if hello.magic != MAGIC {
        return Err(HandshakeError::Broken("these are not the first bytes of a litefs-rpc client".into()));
    }
    let version = ProtocolVersion::common(hello.min_version, hello.max_version)
        .ok_or_else(|| version_skew(hello.min_version, hello.max_version))?;
    if hello.database != database {
        return Err(HandshakeError::WrongDatabase { asked: hello.database.clone(), served: database.into() });
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

/// Gives the stream back. Bytes beyond the last frame would be lost, and no honest peer sends any yet.
fn unframed<S>(frames: Frames<S>) -> Result<S, HandshakeError> {
    let parts = frames.into_parts();
    if parts.read_buf.is_empty() {
        Ok(parts.io)
    } else {
        Err(HandshakeError::Broken("the peer spoke before the handshake was over".into()))
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
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const V1: ProtocolVersion = ProtocolVersion::V1;

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    async fn shake(
        client: (&str, Option<Secret>),
        server: (&str, Option<Secret>),
    ) -> (Result<ProtocolVersion, HandshakeError>, Result<ProtocolVersion, HandshakeError>) {
        let (a, b) = duplex(8_192);
        let (left, right) = tokio::join!(
            greet(a, client.0, client.1.as_ref()),
            receive_client(b, server.0, server.1.as_ref())
        );
        (left.map(|(_, v)| v), right.map(|(_, v)| v))
    }

    #[tokio::test]
    async fn nodes_with_the_same_secret_agree() {
        let key = || Some(secret("0123456789abcdef"));
        assert_eq!(shake(("app.db", key()), ("app.db", key())).await, (Ok(V1), Ok(V1)));
        assert_eq!(shake(("app.db", None), ("app.db", None)).await, (Ok(V1), Ok(V1)));
    }

    #[tokio::test]
    async fn s1_a_wrong_or_missing_secret_is_refused_by_both_sides() {
        let a = || Some(secret("0123456789abcdef"));
        let b = || Some(secret("fedcba9876543210"));
        let refused = HandshakeError::Unauthenticated;
        assert_eq!(
            shake(("app.db", b()), ("app.db", a())).await,
            (Err(refused.clone()), Err(refused.clone()))
        );
        assert_eq!(shake(("app.db", None), ("app.db", a())).await, (Err(refused.clone()), Err(refused)));
        let (client, _) = shake(("app.db", a()), ("app.db", None)).await;
        assert_eq!(client, Err(HandshakeError::ServerUnproven));
    }

    #[tokio::test]
    async fn s1_a_wrong_database_is_named() {
        let (client, server) = shake(("app.db", None), ("other.db", None)).await;
        let wrong = HandshakeError::WrongDatabase { asked: "app.db".into(), served: "other.db".into() };
        assert_eq!((client, server), (Err(wrong.clone()), Err(wrong)));
    }

    #[tokio::test]
    async fn s1_a_recorded_handshake_cannot_be_replayed() {
        let key = secret("0123456789abcdef");
        // Record what an honest client says.
        let (a, mut b) = duplex(8_192);
        let recorder = tokio::spawn({
            let key = key.clone();
            async move { greet(a, "app.db", Some(&key)).await.map(|_| ()) }
        });
        let hello = frame(&mut b).await;
        let challenge = Challenge::Go { version: 1, nonce: [7; 32] };
        write_frame(&mut b, &options().serialize(&challenge).unwrap()).await;
        let proof = frame(&mut b).await;
        drop(b);
        assert!(recorder.await.unwrap().is_err());
        // Say it again to a real server.
        let (mut attacker, server) = duplex(8_192);
        let server =
            tokio::spawn(async move { receive_client(server, "app.db", Some(&key)).await.map(|_| ()) });
        write_frame(&mut attacker, &hello).await;
        let _challenge = frame(&mut attacker).await;
        write_frame(&mut attacker, &proof).await;
        assert_eq!(server.await.unwrap(), Err(HandshakeError::Unauthenticated));
    }

    fn hello(min_version: u16, max_version: u16) -> Hello {
        Hello { magic: MAGIC, min_version, max_version, database: "app.db".into(), nonce: [0; 32] }
    }

    #[tokio::test]
    async fn s1_a_client_of_other_versions_is_told_of_the_skew() {
        for (oldest, newest) in [(8, 9), (0, 0)] {
            let (mut client, server) = duplex(8_192);
            let server = tokio::spawn(async move {
                receive_client(server, "app.db", None).await.map(|(_, version)| version)
            });
            write_frame(&mut client, &options().serialize(&hello(oldest, newest)).unwrap()).await;
            let answer: Challenge = options().deserialize(&frame(&mut client).await).unwrap();
            let skew = version_skew(oldest, newest);
            assert!(matches!(answer, Challenge::Refused(error) if error == skew));
            assert_eq!(server.await.unwrap(), Err(skew));
        }
    }

    #[tokio::test]
    async fn s1_a_newer_client_is_answered_in_the_common_version() {
        let (mut client, server) = duplex(8_192);
        let server = tokio::spawn(async move { receive_client(server, "app.db", None).await });
        write_frame(&mut client, &options().serialize(&hello(1, 9)).unwrap()).await;
        let answer: Challenge = options().deserialize(&frame(&mut client).await).unwrap();
        assert!(matches!(answer, Challenge::Go { version: 1, .. }));
        drop(client);
        assert!(server.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn s1_a_server_that_answers_in_an_unknown_version_is_refused() {
        let (client, mut server) = duplex(8_192);
        let client = tokio::spawn(async move { greet(client, "app.db", None).await.map(|_| ()) });
        let _hello = frame(&mut server).await;
        let answer = Challenge::Go { version: 9, nonce: [7; 32] };
        write_frame(&mut server, &options().serialize(&answer).unwrap()).await;
        drop(server);
        assert_eq!(client.await.unwrap(), Err(version_skew(9, 9)));
    }

    #[tokio::test]
    async fn s6_random_bytes_end_the_handshake() {
        for seed in 0..200_u8 {
            let (mut a, b) = duplex(8_192);
            let garbage: Vec<u8> = (0..64_u8).map(|i| i.wrapping_mul(37).wrapping_add(seed)).collect();
            a.write_all(&garbage).await.unwrap();
            drop(a);
            assert!(receive_client(b, "app.db", None).await.is_err());
        }
    }

    async fn frame(stream: &mut DuplexStream) -> Vec<u8> {
        let length = stream.read_u32().await.unwrap();
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn write_frame(stream: &mut DuplexStream, bytes: &[u8]) {
        stream.write_u32(bytes.len() as u32).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }
}
