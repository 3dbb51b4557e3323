//! The replies of a server whose storage fails before the node's role has changed.

use std::sync::atomic::Ordering;

use litefs_rpc::client::CallError;
use litefs_rpc::wire::{DatabaseError, DatabaseErrorKind, ServerError};

use crate::support::*;

fn failing(message: &'static str) -> Run {
    let error = DatabaseError { kind: DatabaseErrorKind::Other, message: message.into() };
    Box::new(move |_| Err(ServerError::Database(error.clone())))
}

#[tokio::test]
async fn f15_a_write_on_a_lost_mount_is_redirected() {
    for message in ["unable to open database file", "locking protocol", "file is not a database"] {
        let test = TestServer::start(|_| {}, failing(message)).await;
        test.role_guard.demoted_when_asked.store(true, Ordering::SeqCst);
        let link = client().connect(&test.address()).await.unwrap();
        let answer = link.write(request("INSERT"), soon()).await;
        assert!(
            matches!(answer, Err(CallError::Refused(ServerError::NotPrimary { .. }))),
            "{message}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn f15_a_statement_on_a_lost_mount_loses_the_session() {
    let test = TestServer::start(|_| {}, failing("unable to open database file")).await;
    let link = client().connect(&test.address()).await.unwrap();
    let (id, _) = link.begin(begin(), soon()).await.unwrap();
    test.role_guard.demoted_when_asked.store(true, Ordering::SeqCst);
    let answer = link.step(id, statement("INSERT"), soon()).await;
    assert!(
        matches!(answer, Err(CallError::Refused(ServerError::SessionLost { .. }))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_failing_disk_of_the_primary_is_reported() {
    let test = TestServer::start(|_| {}, failing("disk I/O error")).await;
    let link = client().connect(&test.address()).await.unwrap();
    let answer = link.write(request("INSERT"), soon()).await;
    assert!(matches!(answer, Err(CallError::Refused(ServerError::Io { .. }))), "{answer:?}");
}
