//! The limits of a server, and peers that violate them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use litefs_rpc::Secret;
use litefs_rpc::client::{CallError, Fate};
use litefs_rpc::handshake::HandshakeError;
use litefs_rpc::wire::{Output, RowSet, ServerError, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn f11_a_full_queue_refuses_and_late_work_is_not_started() {
    let (release, gate) = mpsc::channel::<()>();
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let test = TestServer::start(
        |config| config.limits.queue = 1,
        Box::new(move |_| {
            let _ = started.send(());
            let _ = gate.recv_timeout(TIMEOUT);
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Output::Count(1))
        }),
    )
    .await;
    // Separate connections: tarpc throttles the requests of one connection already.
    let links = [
        client().connect(&test.address()).await.unwrap(),
        client().connect(&test.address()).await.unwrap(),
        client().connect(&test.address()).await.unwrap(),
    ];
    let running = tokio::spawn({
        let link = Arc::clone(&links[0]);
        async move { link.write(request("1"), soon()).await }
    });
    has_started.recv().await.unwrap();
    let short = std::time::Instant::now() + Duration::from_millis(50);
    let queued = tokio::spawn({
        let link = Arc::clone(&links[1]);
        async move { link.write(request("2"), short).await }
    });
    let error = loop {
        // The second may not have been queued yet. A third that was queued in its place is
        // abandoned at once.
        let brief = std::time::Instant::now() + Duration::from_millis(20);
        let error = links[2].write(request("3"), brief).await.unwrap_err();
        if matches!(error, CallError::Refused(_)) {
            break error;
        }
    };
    assert!(matches!(error, CallError::Refused(ServerError::Overloaded { .. })), "{error:?}");
    assert!(queued.await.unwrap().is_err(), "its deadline passed in the queue");
    release.send(()).unwrap();
    running.await.unwrap().unwrap();
    drop(release);
    // Requests that were abandoned in the queue are skipped when the writer reaches them.
    loop {
        match links[0].write(request("4"), soon()).await {
            Err(CallError::Refused(ServerError::Overloaded { .. })) => {
                tokio::task::yield_now().await
            }
            last => break assert!(last.is_ok(), "{last:?}"),
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 2, "only the first and the last ran");
}

#[tokio::test]
async fn s5_an_oversize_reply_keeps_the_connection_open() {
    let test = TestServer::start(
        |_| {},
        Box::new(|sql| match sql {
            "big" => Err(ServerError::TooLarge { what: "rows".into(), actual: 2, limit: 1 }),
            _ => Ok(Output::Count(1)),
        }),
    )
    .await;
    let link = client().connect(&test.address()).await.unwrap();
    assert!(matches!(
        link.write(request("big"), soon()).await,
        Err(CallError::Refused(ServerError::TooLarge { .. }))
    ));
    assert!(link.write(request("small"), soon()).await.is_ok());
}

#[tokio::test]
async fn s5_an_oversize_frame_ends_only_its_own_connection() {
    let test = TestServer::start(|config| config.limits.frame = 10_000, counting()).await;
    let other = client().connect(&test.address()).await.unwrap();
    let link = client().connect(&test.address()).await.unwrap();
    let error = link.write(request(&"x".repeat(20_000)), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    assert!(other.write(request("small"), soon()).await.is_ok());
}

#[tokio::test]
async fn s5_malformed_rows_are_an_error() {
    let rows = RowSet { columns: vec!["a".into(), "b".into()], values: vec![Value::Null] };
    let test = TestServer::start(|_| {}, Box::new(move |_| Ok(Output::Rows(rows.clone())))).await;
    let link = client().connect(&test.address()).await.unwrap();
    assert!(matches!(link.write(request("q"), soon()).await, Err(CallError::Lost { .. })));
}

#[tokio::test]
async fn s6_garbage_slow_and_many_peers_leave_the_server_alive() {
    let test = TestServer::start(
        |config| {
            config.limits.handshake = Duration::from_millis(100);
            config.limits.connections = 50;
        },
        counting(),
    )
    .await;
    let address: SocketAddr = test.server.address();
    for seed in 0..100_u8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let garbage: Vec<u8> = (0..200_u8).map(|i| i.wrapping_mul(seed)).collect();
        let _ = stream.write_all(&garbage).await;
    }
    // Silent peers are disconnected: reading from them ends.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for stream in &mut silent {
        let closed = tokio::time::timeout(TIMEOUT, stream.read_u8()).await.unwrap();
        assert!(closed.is_err());
    }
    let link = client().connect(&test.address()).await.unwrap();
    assert!(link.write(request("INSERT"), soon()).await.is_ok());
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_with_a_reason() {
    let test = TestServer::start(|config| config.limits.connections = 1, counting()).await;
    let _first = client().connect(&test.address()).await.unwrap();
    let error = client().connect(&test.address()).await.unwrap_err();
    let full = HandshakeError::TooManyConnections { limit: 1 };
    assert_eq!(error, CallError::Handshake { address: test.address(), error: full });
}

#[tokio::test]
async fn s1_without_the_secret_no_request_runs() {
    let secret = Secret::new("0123456789abcdef").unwrap();
    let test = TestServer::start(
        |config| config.secret = Some(secret),
        Box::new(|_| panic!("nothing must run")),
    )
    .await;
    let error = client().connect(&test.address()).await.unwrap_err();
    assert!(
        matches!(error, CallError::Handshake { error: HandshakeError::Unauthenticated, .. }),
        "{error:?}"
    );
}
