//! How the writer groups concurrent writes, over real sockets.

use std::sync::{Arc, mpsc};

use futures::future::join_all;
use litefs_rpc::client::{CallError, Connection};
use litefs_rpc::wire::{Output, Reply, ServerError};

use crate::support::{FakeRoleGuard, Run, TIMEOUT, TestServer, client, request, soon};

/// A server whose writer is blocked by a first write until the test releases it.
struct Held {
    test: TestServer,
    release: mpsc::Sender<()>,
    first: tokio::task::JoinHandle<Result<Reply, CallError>>,
    link: Arc<Connection>,
}

impl Held {
    async fn start(group: usize) -> Self {
        let (release, gate) = mpsc::channel::<()>();
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let role_guard = FakeRoleGuard::primary();
        let demoted = Arc::clone(&role_guard);
        let run: Run = Box::new(move |sql| {
            if sql.contains("demotion") {
                demoted.demote();
            }
            if sql == "first" {
                let _ = started.send(());
                let _ = gate.recv_timeout(TIMEOUT);
            }
            match sql.contains("wrong") {
                true => Err(ServerError::TooLarge { what: sql.into(), actual: 2, limit: 1 }),
                false => Ok(Output::Count(1)),
            }
        });
        let test = TestServer::fenced(role_guard, |config| config.limits.group = group, run).await;
        let connect = async || client().connect(&test.address()).await.unwrap();
        let (own, link) = (connect().await, connect().await);
        let first = tokio::spawn(async move { own.write(request("first"), soon()).await });
        has_started.recv().await.unwrap();
        Self { test, release, first, link }
    }

    /// Queues writes, releases the writer once all of them wait, and returns their results.
    async fn queue(self, sqls: &[&str]) -> (Vec<Result<Output, CallError>>, Vec<Vec<String>>) {
        let Self { test, release, first, link } = self;
        let writes = sqls.iter().map(|sql| link.write(request(sql), soon()));
        let go = async {
            let deadline = soon();
            while test.server.waiting() < sqls.len() {
                assert!(std::time::Instant::now() < deadline, "the writes are not queued");
                tokio::task::yield_now().await;
            }
            release.send(()).unwrap();
        };
        let (answers, ()) = tokio::join!(join_all(writes), go);
        first.await.unwrap().unwrap();
        let answers = answers.into_iter().map(|answer| answer.map(|reply| reply.answer)).collect();
        (answers, test.groups.try_iter().collect())
    }
}

fn good(answers: &[Result<Output, CallError>]) -> Vec<bool> {
    answers.iter().map(Result::is_ok).collect()
}

#[tokio::test]
async fn waiting_writes_commit_together_with_their_own_results() {
    let held = Held::start(128).await;
    let (answers, groups) =
        held.queue(&["shared 1", "shared 2", "shared, wrong", "shared 3", "shared 4"]).await;
    assert_eq!(good(&answers), [true, true, false, true, true]);
    assert_eq!(groups, [["shared 1", "shared 2", "shared, wrong", "shared 3", "shared 4"]]);
}

#[tokio::test]
async fn an_incompatible_request_ends_the_group_and_runs_next() {
    let held = Held::start(128).await;
    let (answers, groups) =
        held.queue(&["shared 1", "shared 2", "alone", "shared 3", "shared 4"]).await;
    assert_eq!(good(&answers), [true; 5]);
    assert_eq!(groups, [["shared 1", "shared 2"], ["shared 3", "shared 4"]]);
}

#[tokio::test]
async fn a_group_has_at_most_the_configured_size() {
    let held = Held::start(2).await;
    let (answers, groups) =
        held.queue(&["shared 1", "shared 2", "shared 3", "shared 4", "shared 5", "shared 6"]).await;
    assert_eq!(good(&answers), [true; 6]);
    assert!(groups.iter().all(|group| group.len() == 2) && groups.len() == 3, "{groups:?}");
}

#[tokio::test]
async fn an_aborted_group_is_rolled_back_and_run_one_by_one() {
    let held = Held::start(128).await;
    let (answers, groups) =
        held.queue(&["shared 1", "shared, apart", "shared 2", "shared 3"]).await;
    assert_eq!(good(&answers), [true; 4]);
    assert_eq!(groups, [["shared 2", "shared 3"]], "those behind it are a group of their own");
}

#[tokio::test]
async fn f6_a_demotion_refuses_the_whole_group() {
    let held = Held::start(128).await;
    let (answers, groups) = held.queue(&["shared 1", "shared demotion", "shared 3"]).await;
    for answer in &answers {
        assert!(
            matches!(answer, Err(CallError::Refused(ServerError::NotPrimary { .. }))),
            "{answer:?}"
        );
    }
    assert!(groups.is_empty(), "{groups:?}");
}
