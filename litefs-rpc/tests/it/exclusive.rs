//! Exclusive connections.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use litefs_rpc::client::{CallError, Client, ClientConfig, Connection, ExclusiveConnection, Fate};
use litefs_rpc::wire::{Output, ServerError};

use crate::support::{TIMEOUT, TestServer, begin, counting, request, soon, statement};

/// A client with one exclusive connection beside the shared one.
async fn with_a_lane(test: &TestServer) -> (Client, Arc<Connection>) {
    let mut config = ClientConfig::new("app.db");
    config.lanes = 1;
    let client = Client::new(config);
    let link = client.connect(&test.address()).await.unwrap();
    assert!(client.wants_lane(&link) && !client.wants_lane(&link), "one is opened at a time");
    client.open_lane(Arc::clone(&link)).await;
    (client, link)
}

fn write(
    lane: &mut ExclusiveConnection,
    sql: &str,
    deadline: Instant,
) -> Result<Output, CallError> {
    let request = request(sql);
    lane.wait(deadline, |link| async move { link.write(request, deadline).await })
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
    let (client, link) = with_a_lane(&test).await;
    assert!(!client.wants_lane(&link), "there are as many as may be");
    let mut lane = link.lane().unwrap();
    assert!(link.lane().is_none(), "the connection is in use");
    let lane = blocking(move || {
        for _ in 0..3 {
            assert_eq!(write(&mut lane, "good", soon()), Ok(Output::Count(1)));
            assert!(matches!(write(&mut lane, "bad", soon()), Err(CallError::Refused(_))));
        }
        lane
    })
    .await;
    lane.release();
    assert!(link.lane().is_some());
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
    let (client, link) = with_a_lane(&test).await;
    let mut lane = link.lane().unwrap();
    let (lane, error) = blocking(move || {
        let error =
            write(&mut lane, "slow", Instant::now() + Duration::from_millis(50)).unwrap_err();
        (lane, error)
    })
    .await;
    assert!(
        matches!(error, CallError::Deadline { .. }) && error.fate() == Fate::Unknown,
        "{error:?}"
    );
    lane.release();
    assert!(link.lane().is_none(), "its reply may still arrive");
    assert!(client.wants_lane(&link), "another may take its place");
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
    let (client, link) = with_a_lane(&test).await;
    let mut lane = link.lane().unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        let error = write(&mut lane, "for ever", soon()).unwrap_err();
        lane.release();
        error
    });
    has_started.recv().await.unwrap();
    link.close();
    let error = waiting.await.unwrap();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");
    assert!(
        link.lane().is_none() && !client.wants_lane(&link),
        "none is opened beside a closed link"
    );
    drop(release);
}

#[tokio::test]
async fn x7_dropping_an_exclusive_connection_rolls_back_at_once() {
    let test = TestServer::start(|_| {}, counting()).await;
    let (_client, link) = with_a_lane(&test).await;
    let mut lane = link.lane().unwrap();
    blocking(move || {
        let deadline = soon();
        let (session, _) =
            lane.wait(deadline, |link| async move { link.begin(begin(), deadline).await }).unwrap();
        let step = |link: Arc<Connection>| async move {
            link.step(session, statement("1"), deadline).await
        };
        assert_eq!(lane.wait(deadline, step).unwrap().answer, Output::Count(1));
    })
    .await;
    test.wait_for_rollback().await;
}

#[tokio::test]
async fn a_full_server_gets_no_more_exclusive_connections() {
    let test = TestServer::start(|config| config.limits.connections = 1, counting()).await;
    let (client, link) = with_a_lane(&test).await;
    assert!(link.lane().is_none() && !client.wants_lane(&link));
    assert!(link.write(request("over the link"), soon()).await.is_ok());
}
