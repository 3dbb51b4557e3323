//! Tests of the handshake, some against a hand-written peer.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const NEWEST: ProtocolVersion = ProtocolVersion::NEWEST;

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
    assert_eq!(shake(("app.db", key()), ("app.db", key())).await, (Ok(NEWEST), Ok(NEWEST)));
    assert_eq!(shake(("app.db", None), ("app.db", None)).await, (Ok(NEWEST), Ok(NEWEST)));
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
    assert_eq!(
        shake(("app.db", None), ("app.db", a())).await,
        (Err(refused.clone()), Err(refused))
    );
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
async fn s1_a_client_of_another_version_is_answered_in_the_common_one() {
    for (newest, common) in [(9, 2), (1, 1)] {
        let (mut client, server) = duplex(8_192);
        let server = tokio::spawn(async move { receive_client(server, "app.db", None).await });
        write_frame(&mut client, &options().serialize(&hello(1, newest)).unwrap()).await;
        let answer: Challenge = options().deserialize(&frame(&mut client).await).unwrap();
        assert!(matches!(answer, Challenge::Go { version, .. } if version == common));
        drop(client);
        assert!(server.await.unwrap().is_err());
    }
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
