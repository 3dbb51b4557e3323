//! Exclusive connections.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use litefs_rpc::client::{CallError, Client, ClientConfig, Connection, ExclusiveConnection, Fate};
use litefs_rpc::wire::{Output, ServerError};

use crate::support::{TIMEOUT, TestServer, begin, counting, request, soon, statement};

/// A client with one exclusive connection beside the shared one.
async fn with_exclusive(test: &TestServer) -> (Client, Arc<Connection>) {
    let mut config = ClientConfig::new("app.db");
    config.exclusive_connections = 1;
    let client = Client::new(config);
    let link = client.connect(&test.address()).await.unwrap();
    assert!(
        client.wants_exclusive(&link) && !client.wants_exclusive(&link),
        "one is opened at a time"
    );
    client.open_exclusive(Arc::clone(&link)).await;
    (client, link)
}

fn write(own: &mut ExclusiveConnection, sql: &str, deadline: Instant) -> Result<Output, CallError> {
    let request = request(sql);
    own.wait(deadline, |link| async move { link.write(request, deadline).await })
        .map(|reply| reply.answer)
}

/// Exclusive connections block, so they are used on separate threads.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn an_exclusive_connection_is_reused() {
    let test = TestServer::start(
        |_| {},
        Box::new(|sql| match sql {
            "bad" => Err(ServerError::TooLarge { what: "it".into(), actual: 2, limit: 1 }),
            _ => Ok(Output::Count(1)),
        }),
    )
    .await;
    let (client, link) = with_exclusive(&test).await;
    assert!(!client.wants_exclusive(&link), "there are as many as may be");
    let mut own = link.exclusive().unwrap();
    assert!(link.exclusive().is_none(), "the connection is in use");
    let own = blocking(move || {
        for _ in 0..3 {
            assert_eq!(write(&mut own, "good", soon()), Ok(Output::Count(1)));
            assert!(matches!(write(&mut own, "bad", soon()), Err(CallError::Refused(_))));
        }
        own
    })
    .await;
    own.release();
    assert!(link.exclusive().is_some());
    assert_eq!(client.round_trips(), 6);
}

#[tokio::test]
async fn an_exclusive_connection_is_closed_after_a_timeout() {
    let (release, gate) = mpsc::channel::<()>();
    let test = TestServer::start(
        |_| {},
        Box::new(move |_| {
            let _ = gate.recv_timeout(TIMEOUT);
            Ok(Output::Count(1))
        }),
    )
    .await;
    let (client, link) = with_exclusive(&test).await;
    let mut own = link.exclusive().unwrap();
    let (own, error) = blocking(move || {
        let error =
            write(&mut own, "slow", Instant::now() + Duration::from_millis(50)).unwrap_err();
        (own, error)
    })
    .await;
    assert!(
        matches!(error, CallError::Deadline { .. }) && error.fate() == Fate::Unknown,
        "{error:?}"
    );
    own.release();
    assert!(link.exclusive().is_none(), "its reply may still arrive");
    assert!(client.wants_exclusive(&link), "another may take its place");
    drop(release);
}

#[tokio::test]
async fn an_exclusive_connection_ends_with_the_shared_one() {
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let (release, gate) = mpsc::channel::<()>();
    let test = TestServer::start(
        |_| {},
        Box::new(move |_| {
            let _ = started.send(());
            let _ = gate.recv_timeout(TIMEOUT);
            Ok(Output::Count(1))
        }),
    )
    .await;
    let (client, link) = with_exclusive(&test).await;
    let mut own = link.exclusive().unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        let error = write(&mut own, "for ever", soon()).unwrap_err();
        own.release();
        error
    });
    has_started.recv().await.unwrap();
    link.close();
    let error = waiting.await.unwrap();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");
    assert!(
        link.exclusive().is_none() && !client.wants_exclusive(&link),
        "none is opened beside a closed link"
    );
    drop(release);
}

#[tokio::test]
async fn x7_dropping_an_exclusive_connection_rolls_back_at_once() {
    let test = TestServer::start(|_| {}, counting()).await;
    let (_client, link) = with_exclusive(&test).await;
    let mut own = link.exclusive().unwrap();
    blocking(move || {
        let deadline = soon();
        let (session, _) =
            own.wait(deadline, |link| async move { link.begin(begin(), deadline).await }).unwrap();
        let step = |link: Arc<Connection>| async move {
            link.step(session, statement("1"), deadline).await
        };
        assert_eq!(own.wait(deadline, step).unwrap().answer, Output::Count(1));
    })
    .await;
    test.wait_for_rollback().await;
}

#[tokio::test]
async fn a_full_server_gets_no_more_exclusive_connections() {
    let test = TestServer::start(|config| config.limits.connections = 1, counting()).await;
    let (client, link) = with_exclusive(&test).await;
    assert!(link.exclusive().is_none() && !client.wants_exclusive(&link));
    assert!(link.write(request("over the link"), soon()).await.is_ok());
}
