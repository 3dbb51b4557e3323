//! Client and server over real sockets, with a small executor instead of SQLite and a role guard
//! that the test controls.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use litefs_core::{Checksum, Position, Txid};
use litefs_rpc::client::{CallError, Fate};
use litefs_rpc::wire::{
    Command, DatabaseError, DatabaseErrorKind, Delivery, Output, PrimaryHint, ReplicaReport,
    Request, ServerError,
};

use crate::support::*;

#[tokio::test]
async fn a_write_returns_its_result_and_position() {
    let test = TestServer::start(|_| {}, counting()).await;
    let client = client();
    let link = client.connect(&test.address()).await.unwrap();
    let reply = link.write(request("INSERT"), soon()).await.unwrap();
    assert_eq!(reply.answer, Output::Count(1));
    assert_eq!(reply.position.unwrap().txid, Txid::new(2));
    assert_eq!(client.round_trips(), 1);
}

#[tokio::test]
async fn waiting_for_a_connection_ends_when_one_is_opened() {
    let test = TestServer::start(|_| {}, counting()).await;
    let (client, address) = (client(), test.address());
    let mut waiting = Box::pin(client.connected(&address));
    assert!(futures::poll!(&mut waiting).is_pending());
    let link = client.connect(&address).await.unwrap();
    waiting.await;
    client.connected(&address).await;
    link.close();
    assert!(futures::poll!(Box::pin(client.connected(&address))).is_pending());
}

#[tokio::test]
async fn consecutive_fast_writes_are_all_answered() {
    let test = TestServer::start(|_| {}, counting()).await;
    let link = client().connect(&test.address()).await.unwrap();
    for _ in 0..1_000 {
        assert!(link.write(request("INSERT"), soon()).await.is_ok());
    }
    let many = (0..200).map(|_| link.write(request("INSERT"), soon()));
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(test.server.waiting(), 0);
}

#[tokio::test]
async fn f6_a_commit_during_a_role_change_is_not_acknowledged() {
    let role_guard = FakeRoleGuard::primary();
    let inner = Arc::clone(&role_guard);
    let run: Run = Box::new(move |_| {
        inner.demote();
        Ok(Output::Count(1))
    });
    let test = TestServer::fenced(role_guard, |_| {}, run).await;
    let client = client();
    let link = client.connect(&test.address()).await.unwrap();
    let error = link.write(request("INSERT"), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
}

#[tokio::test]
async fn work_that_changed_nothing_is_refused_after_a_demotion() {
    let role_guard = FakeRoleGuard::primary();
    let inner = Arc::clone(&role_guard);
    let run: Run = Box::new(move |_| {
        inner.demote();
        Ok(Output::Count(0))
    });
    let test = TestServer::fenced(role_guard, |_| {}, run).await;
    let link = client().connect(&test.address()).await.unwrap();
    let error = link.write(request("nothing"), soon()).await.unwrap_err();
    let refused = matches!(error, CallError::Refused(ServerError::NotPrimary { .. }));
    assert!(refused, "{error:?}");
}

#[tokio::test]
async fn a_commit_dropped_by_a_demotion_stays_unknown() {
    let role_guard = FakeRoleGuard::primary();
    let inner = Arc::clone(&role_guard);
    let run: Run = Box::new(move |_| {
        inner.demote();
        Ok(Output::Count(1))
    });
    let test = TestServer::fenced(role_guard, |_| {}, run).await;
    let link = client().connect(&test.address()).await.unwrap();
    let mut request = request("INSERT");
    request.delivery = Delivery::ExactlyOnce;
    test.role_guard.drops_commits.store(true, Ordering::SeqCst);
    let error = link.write(request.clone(), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    test.role_guard.promote_again();
    // SQLite still has the outcome.
    request.again = true;
    let error = link.write(request.clone(), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    test.role_guard.commit();
    assert!(link.write(request, soon()).await.is_ok(), "the position has moved on");
}

#[tokio::test]
async fn the_executor_learns_of_each_term_before_its_first_work() {
    let test = TestServer::start(|_| {}, counting()).await;
    let link = client().connect(&test.address()).await.unwrap();
    for term in 1..4 {
        for _ in 0..2 {
            link.write(request("INSERT"), soon()).await.unwrap();
            assert_eq!(test.role_guard.terms.load(Ordering::SeqCst), term);
        }
        test.role_guard.demote();
        test.role_guard.promote_again();
    }
}

#[tokio::test]
async fn replicas_learn_the_start_of_the_term_before_writes() {
    let role_guard = FakeRoleGuard::primary();
    let term_start = Position { txid: Txid::new(1), checksum: Checksum::new(7) };
    role_guard.role.send_modify(|state| state.term_start = Some(term_start));
    role_guard.commit();
    let test = TestServer::fenced(role_guard, |_| {}, counting()).await;
    let link = client().connect(&test.address()).await.unwrap();
    let report = ReplicaReport { node: "b".into(), address: None, position: None };
    let followed = link.follow(report, Txid::new(0), soon()).await.unwrap();
    assert_eq!((followed.term_start, followed.position.txid), (term_start, Txid::new(2)));
}

#[tokio::test]
async fn a_replica_refuses_writes_and_names_the_primary() {
    let test = TestServer::start(|_| {}, Box::new(|_| panic!("nothing must run"))).await;
    test.role_guard.demote();
    let hint = PrimaryHint { node: "b".into(), address: "b:1".into() };
    *test.role_guard.hint.lock().unwrap() = Some(hint.clone());
    let link = client().connect(&test.address()).await.unwrap();
    let error = link.write(request("INSERT"), soon()).await.unwrap_err();
    assert_eq!(error, CallError::Refused(ServerError::NotPrimary { hint: Some(hint) }));
    assert_eq!(error.fate(), Fate::NotApplied);
}

#[tokio::test]
async fn f12_a_shutdown_closes_connections_and_frees_the_port() {
    let test = TestServer::start(|_| {}, counting()).await;
    let client = client();
    let link = client.connect(&test.address()).await.unwrap();
    link.write(request("INSERT"), soon()).await.unwrap();
    test.server.shutdown().await;
    assert!(link.write(request("INSERT"), soon()).await.is_err());
    std::net::TcpListener::bind(test.server.address()).unwrap();
}

#[tokio::test]
async fn a_write_rejected_during_a_demotion_is_redirected() {
    for (work, fate) in
        [(statement("INSERT"), Fate::NotApplied), (Command::Script("INSERT".into()), Fate::Unknown)]
    {
        let role_guard = FakeRoleGuard::primary();
        let demoted = Arc::clone(&role_guard);
        let rejection =
            DatabaseError { kind: DatabaseErrorKind::Other, message: "disk I/O error".into() };
        let run: Run = Box::new(move |_| {
            demoted.demote();
            Err(ServerError::Database(rejection.clone()))
        });
        let test = TestServer::fenced(role_guard, |_| {}, run).await;
        let link = client().connect(&test.address()).await.unwrap();
        let error = link.write(Request { work, ..request("") }, soon()).await.unwrap_err();
        assert_eq!(error.fate(), fate, "{error}");
        assert!(!matches!(error, CallError::Refused(ServerError::Database(_))), "{error:?}");
    }
}
