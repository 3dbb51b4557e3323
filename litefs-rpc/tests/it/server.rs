//! Client and server over real sockets, with a small executor instead of SQLite and a role guard
//! that the test controls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures::future::BoxFuture;
use litefs_core::{Checksum, Position, Txid};
use litefs_rpc::client::{
    CallError, Fate, ForwardError, Forwarded, Forwarder, PrimaryLocation, PrimaryLocator,
};
use litefs_rpc::handshake::HandshakeError;
use litefs_rpc::wire::{
    Begin, Command, DatabaseError, DatabaseErrorKind, Delivery, Output, PrimaryHint, ReplicaReport,
    Request, RowSet, ServerError, Value,
};
use litefs_rpc::{Limits, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test]
async fn a_write_returns_its_result_and_position() {
    let bed = Bed::start(|_| {}, counting()).await;
    let client = client();
    let link = client.connect(&bed.address()).await.unwrap();
    let reply = link.write(request("INSERT"), soon()).await.unwrap();
    assert_eq!(reply.answer, Output::Count(1));
    assert_eq!(reply.position.unwrap().txid, Txid::new(2));
    assert_eq!(client.round_trips(), 1);
}

#[tokio::test]
async fn waiting_for_a_connection_ends_when_one_is_opened() {
    let bed = Bed::start(|_| {}, counting()).await;
    let (client, address) = (client(), bed.address());
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
    let bed = Bed::start(|_| {}, counting()).await;
    let link = client().connect(&bed.address()).await.unwrap();
    for _ in 0..1_000 {
        assert!(link.write(request("INSERT"), soon()).await.is_ok());
    }
    let many = (0..200).map(|_| link.write(request("INSERT"), soon()));
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(bed.server.waiting(), 0);
}

#[tokio::test]
async fn f6_a_commit_during_a_role_change_is_not_acknowledged() {
    let role_guard = FakeRoleGuard::primary();
    let inner = Arc::clone(&role_guard);
    let run: Run = Box::new(move |_| {
        inner.demote();
        Ok(Output::Count(1))
    });
    let bed = Bed::fenced(role_guard, |_| {}, run).await;
    let client = client();
    let link = client.connect(&bed.address()).await.unwrap();
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
    let bed = Bed::fenced(role_guard, |_| {}, run).await;
    let link = client().connect(&bed.address()).await.unwrap();
    let error = link.write(request("nothing"), soon()).await.unwrap_err();
    let refused = matches!(error, CallError::Refused(ServerError::NotPrimary { .. }));
    assert!(refused, "{error:?}");
}

#[tokio::test]
async fn a_commit_dropped_by_a_demotion_stays_unknown_in_the_next_term() {
    let role_guard = FakeRoleGuard::primary();
    let inner = Arc::clone(&role_guard);
    let run: Run = Box::new(move |_| {
        inner.demote();
        Ok(Output::Count(1))
    });
    let bed = Bed::fenced(role_guard, |_| {}, run).await;
    let link = client().connect(&bed.address()).await.unwrap();
    let mut request = request("INSERT");
    request.delivery = Delivery::ExactlyOnce;
    bed.role_guard.drops_commits.store(true, Ordering::SeqCst);
    let error = link.write(request.clone(), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    bed.role_guard.promote_again();
    // SQLite still has the outcome.
    request.again = true;
    let error = link.write(request.clone(), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    bed.role_guard.commit();
    assert!(link.write(request, soon()).await.is_ok(), "the position has moved on");
}

#[tokio::test]
async fn the_executor_learns_of_each_term_before_its_first_work() {
    let bed = Bed::start(|_| {}, counting()).await;
    let link = client().connect(&bed.address()).await.unwrap();
    for term in 1..4 {
        for _ in 0..2 {
            link.write(request("INSERT"), soon()).await.unwrap();
            assert_eq!(bed.role_guard.terms.load(Ordering::SeqCst), term);
        }
        bed.role_guard.demote();
        bed.role_guard.promote_again();
    }
}

#[tokio::test]
async fn replicas_learn_the_start_of_the_term_before_writes() {
    let role_guard = FakeRoleGuard::primary();
    let term_start = Position { txid: Txid::new(1), checksum: Checksum::new(7) };
    role_guard.role.send_modify(|state| state.term_start = Some(term_start));
    role_guard.commit();
    let bed = Bed::fenced(role_guard, |_| {}, counting()).await;
    let link = client().connect(&bed.address()).await.unwrap();
    let report = ReplicaReport { node: "b".into(), address: None, position: None };
    let followed = link.follow(report, Txid::new(0), soon()).await.unwrap();
    assert_eq!((followed.term_start, followed.position.txid), (term_start, Txid::new(2)));
}

#[tokio::test]
async fn a_replica_refuses_writes_and_names_the_primary() {
    let bed = Bed::start(|_| {}, Box::new(|_| panic!("nothing must run"))).await;
    bed.role_guard.demote();
    let hint = PrimaryHint { node: "b".into(), address: "b:1".into() };
    *bed.role_guard.hint.lock().unwrap() = Some(hint.clone());
    let link = client().connect(&bed.address()).await.unwrap();
    let error = link.write(request("INSERT"), soon()).await.unwrap_err();
    assert_eq!(error, CallError::Refused(ServerError::NotPrimary { hint: Some(hint) }));
    assert_eq!(error.fate(), Fate::NotApplied);
}

/// A locator that returns what the test sets.
struct Fixed(watch::Sender<PrimaryLocation>);

impl PrimaryLocator for Fixed {
    fn location(&self) -> PrimaryLocation {
        self.0.borrow().clone()
    }

    fn changed<'a>(&'a self, seen: &'a PrimaryLocation, deadline: Instant) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut location = self.0.subscribe();
            let _ = tokio::time::timeout_at(deadline, location.wait_for(|now| now != seen)).await;
        })
    }

    fn recheck(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn elsewhere(address: String) -> PrimaryLocation {
    PrimaryLocation::Elsewhere(PrimaryHint { node: "x".into(), address })
}

fn forwarder(location: PrimaryLocation, primary_timeout: Duration) -> Forwarder<Fixed> {
    Forwarder::new(Arc::new(client()), Fixed(watch::Sender::new(location)), primary_timeout)
}

#[tokio::test]
async fn f5_a_stale_client_follows_the_hint_and_writes_once() {
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let new = Bed::start(
        |_| {},
        Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Output::Count(1))
        }),
    )
    .await;
    let old = Bed::start(|_| {}, Box::new(|_| panic!("nothing must run"))).await;
    old.role_guard.demote();
    *old.role_guard.hint.lock().unwrap() =
        Some(PrimaryHint { node: "new".into(), address: new.address() });
    let forwarder = forwarder(elsewhere(old.address()), PATIENCE);
    let reply = forwarder.write(request("INSERT"), None, Instant::now() + PATIENCE).await.unwrap();
    assert!(matches!(reply, Forwarded::There(_)), "{reply:?}");
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nodes_that_name_each_other_do_not_loop_a_client() {
    let (one, two) = (Bed::start(|_| {}, counting()).await, Bed::start(|_| {}, counting()).await);
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.role_guard.demote();
        *node.role_guard.hint.lock().unwrap() =
            Some(PrimaryHint { node: "other".into(), address: other.address() });
    }
    let forwarder = forwarder(elsewhere(one.address()), PATIENCE);
    let error = forwarder
        .write(request("INSERT"), None, Instant::now() + Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForwardError::Call(CallError::Refused(ServerError::NotPrimary { .. }))),
        "{error:?}"
    );
}

#[tokio::test]
async fn m6_a_write_waits_for_a_primary_up_to_the_limit() {
    let waiting = forwarder(PrimaryLocation::Nowhere, Duration::from_millis(100));
    let error =
        waiting.write(request("INSERT"), None, Instant::now() + PATIENCE).await.unwrap_err();
    let ForwardError::NoPrimary { waited } = error else { panic!("{error:?}") };
    assert!(waited >= Duration::from_millis(100) && waited < PATIENCE, "{waited:?}");

    let bed = Bed::start(|_| {}, counting()).await;
    let patient = forwarder(PrimaryLocation::Nowhere, PATIENCE);
    let (reply, ()) =
        tokio::join!(patient.write(request("INSERT"), None, Instant::now() + PATIENCE), async {
            tokio::task::yield_now().await;
            patient.locator().0.send_replace(elsewhere(bed.address()));
        });
    assert!(matches!(reply, Ok(Forwarded::There(_))), "{reply:?}");

    let here = forwarder(PrimaryLocation::Here, PATIENCE);
    assert_eq!(
        here.write(request("INSERT"), None, Instant::now() + PATIENCE).await,
        Ok(Forwarded::Here)
    );
}

#[tokio::test]
async fn an_unreachable_server_is_retried_until_the_deadline() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forwarder = forwarder(elsewhere(nobody.to_string()), PATIENCE);
    let error = forwarder
        .write(request("INSERT"), None, Instant::now() + Duration::from_millis(300))
        .await
        .unwrap_err();
    let ForwardError::Call(error) = error else { panic!("{error:?}") };
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    assert_eq!(forwarder.client().round_trips(), 0);
}

#[tokio::test]
async fn a_request_with_a_lost_reply_is_not_resent() {
    let (started, has_started) = mpsc::channel();
    let bed = Bed::start(
        |_| {},
        Box::new(move |_| {
            started.send(()).unwrap();
            std::thread::park_timeout(Duration::from_millis(200));
            Ok(Output::Count(1))
        }),
    )
    .await;
    let forwarder = forwarder(elsewhere(bed.address()), PATIENCE);
    let write = forwarder.write(request("INSERT"), None, Instant::now() + PATIENCE);
    let cut = async {
        while has_started.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        forwarder.client().disconnect();
    };
    let (result, ()) = tokio::join!(write, cut);
    let Err(ForwardError::Call(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    assert_eq!(forwarder.client().round_trips(), 1);
}

#[tokio::test]
async fn f11_a_full_queue_refuses_and_late_work_is_not_started() {
    let (release, gate) = mpsc::channel::<()>();
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let bed = Bed::start(
        |config| config.limits.queue = 1,
        Box::new(move |_| {
            let _ = started.send(());
            let _ = gate.recv_timeout(PATIENCE);
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Output::Count(1))
        }),
    )
    .await;
    // Separate connections: tarpc throttles the requests of one connection already.
    let links = [
        client().connect(&bed.address()).await.unwrap(),
        client().connect(&bed.address()).await.unwrap(),
        client().connect(&bed.address()).await.unwrap(),
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
    let bed = Bed::start(
        |_| {},
        Box::new(|sql| match sql {
            "big" => Err(ServerError::TooLarge { what: "rows".into(), actual: 2, limit: 1 }),
            _ => Ok(Output::Count(1)),
        }),
    )
    .await;
    let link = client().connect(&bed.address()).await.unwrap();
    assert!(matches!(
        link.write(request("big"), soon()).await,
        Err(CallError::Refused(ServerError::TooLarge { .. }))
    ));
    assert!(link.write(request("small"), soon()).await.is_ok());
}

#[tokio::test]
async fn s5_an_oversize_frame_ends_only_its_own_connection() {
    let bed = Bed::start(|config| config.limits.frame = 10_000, counting()).await;
    let other = client().connect(&bed.address()).await.unwrap();
    let link = client().connect(&bed.address()).await.unwrap();
    let error = link.write(request(&"x".repeat(20_000)), soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::Unknown, "{error}");
    assert!(other.write(request("small"), soon()).await.is_ok());
}

#[tokio::test]
async fn s5_malformed_rows_are_an_error() {
    let rows = RowSet { columns: vec!["a".into(), "b".into()], values: vec![Value::Null] };
    let bed = Bed::start(|_| {}, Box::new(move |_| Ok(Output::Rows(rows.clone())))).await;
    let link = client().connect(&bed.address()).await.unwrap();
    assert!(matches!(link.write(request("q"), soon()).await, Err(CallError::Lost { .. })));
}

#[tokio::test]
async fn s6_garbage_slow_and_many_peers_leave_the_server_alive() {
    let bed = Bed::start(
        |config| {
            config.limits.handshake = Duration::from_millis(100);
            config.limits.connections = 50;
        },
        counting(),
    )
    .await;
    let address: SocketAddr = bed.server.address();
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
        let closed = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
        assert!(closed.is_err());
    }
    let link = client().connect(&bed.address()).await.unwrap();
    assert!(link.write(request("INSERT"), soon()).await.is_ok());
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_with_a_reason() {
    let bed = Bed::start(|config| config.limits.connections = 1, counting()).await;
    let _first = client().connect(&bed.address()).await.unwrap();
    let error = client().connect(&bed.address()).await.unwrap_err();
    let full = HandshakeError::TooManyConnections { limit: 1 };
    assert_eq!(error, CallError::Handshake { address: bed.address(), error: full });
}

#[tokio::test]
async fn s1_without_the_secret_no_request_runs() {
    let secret = Secret::new("0123456789abcdef").unwrap();
    let bed =
        Bed::start(|config| config.secret = Some(secret), Box::new(|_| panic!("nothing must run")))
            .await;
    let error = client().connect(&bed.address()).await.unwrap_err();
    assert!(
        matches!(error, CallError::Handshake { error: HandshakeError::Unauthenticated, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn x6_idle_and_total_limits_roll_a_session_back() {
    for (idle, total, word) in [(50, 5_000, "idle"), (5_000, 50, "open")] {
        let bed = Bed::start(
            |config| {
                config.limits.session_idle = Duration::from_millis(idle);
                config.limits.session_total = Duration::from_millis(total);
            },
            counting(),
        )
        .await;
        let link = client().connect(&bed.address()).await.unwrap();
        let (session, _) = link.begin(begin(), soon()).await.unwrap();
        bed.wait_for_rollback().await;
        let error = link.step(session, statement("INSERT"), soon()).await.unwrap_err();
        let CallError::Refused(ServerError::SessionLost { reason }) = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn x7_a_lost_connection_rolls_its_session_back_at_once() {
    let bed = Bed::start(|_| {}, counting()).await;
    let dying = client();
    let link = dying.connect(&bed.address()).await.unwrap();
    link.begin(begin(), soon()).await.unwrap();
    let started = Instant::now();
    dying.disconnect();
    bed.wait_for_rollback().await;
    assert!(started.elapsed() < Limits::default().session_idle / 2, "it waited for the idle limit");
}

#[tokio::test]
async fn x8_a_demotion_rolls_open_sessions_back_at_once() {
    let bed = Bed::start(|_| {}, counting()).await;
    let link = client().connect(&bed.address()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    let started = Instant::now();
    bed.role_guard.demote();
    bed.wait_for_rollback().await;
    assert!(started.elapsed() < Limits::default().session_idle / 2, "it waited for the idle limit");
    let error = link.finish(session, true, soon()).await.unwrap_err();
    assert_eq!(error.fate(), Fate::NotApplied, "{error}");
}

#[tokio::test]
async fn a_session_belongs_to_the_connection_that_opened_it() {
    let bed = Bed::start(|_| {}, counting()).await;
    let (owner, thief) = (client(), client());
    let link = owner.connect(&bed.address()).await.unwrap();
    let (session, _) = link.begin(begin(), soon()).await.unwrap();
    let stolen = thief
        .connect(&bed.address())
        .await
        .unwrap()
        .finish(session, true, soon())
        .await
        .unwrap_err();
    assert!(matches!(stolen, CallError::Refused(ServerError::SessionLost { .. })), "{stolen:?}");
    assert!(link.finish(session, true, soon()).await.is_ok());
}

#[tokio::test]
async fn a_stale_snapshot_is_refused_and_its_lock_released() {
    let bed = Bed::start(|_| {}, counting()).await;
    let link = client().connect(&bed.address()).await.unwrap();
    let old = Position { txid: Txid::new(99), checksum: Checksum::new(9) };
    let error = link.begin(Begin { expected: Some(old), ..begin() }, soon()).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(ServerError::SnapshotMoved { .. })), "{error:?}");
    assert!(link.write(request("INSERT"), soon()).await.is_ok());
}

#[tokio::test]
async fn f12_a_shutdown_closes_connections_and_frees_the_port() {
    let bed = Bed::start(|_| {}, counting()).await;
    let client = client();
    let link = client.connect(&bed.address()).await.unwrap();
    link.write(request("INSERT"), soon()).await.unwrap();
    bed.server.shutdown().await;
    assert!(link.write(request("INSERT"), soon()).await.is_err());
    std::net::TcpListener::bind(bed.server.address()).unwrap();
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
        let bed = Bed::fenced(role_guard, |_| {}, run).await;
        let link = client().connect(&bed.address()).await.unwrap();
        let error = link.write(Request { work, ..request("") }, soon()).await.unwrap_err();
        assert_eq!(error.fate(), fate, "{error}");
        assert!(!matches!(error, CallError::Refused(ServerError::Database(_))), "{error:?}");
    }
}
