//! Asynchronous applications: `diesel_async`'s wrapper around `LiteFsConnection`, and its pools.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use litefs_diesel::{
    AsyncLiteFsConnection, Failure, LiteFsConnection, transaction_with_retry_async,
};
use litefs_tests::{DATABASE, TestCluster};

diesel::table! { counters { id -> Integer, n -> Integer, } }
diesel::table! {
    notes { id -> Integer, text -> Text, score -> Nullable<Double>, data -> Nullable<Binary>, }
}

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, \
                      score DOUBLE, data BLOB)";

type Async = SyncConnectionWrapper<LiteFsConnection>;

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn manager(test: &TestCluster, node: &str) -> AsyncDieselConnectionManager<Async> {
    AsyncDieselConnectionManager::new(test.cluster.node(node).database_url(DATABASE))
}

async fn insert(conn: &mut Async, text: &str) -> QueryResult<i32> {
    let row = (notes::text.eq(text), notes::score.eq(0.5), notes::data.eq(&b"\0x"[..]));
    diesel::insert_into(notes::table).values(row).returning(notes::id).get_result(conn).await
}

async fn texts(conn: &mut Async) -> QueryResult<Vec<String>> {
    notes::table.select(notes::text).order(notes::id).load(conn).await
}

#[test]
fn writes_reads_and_errors_on_a_replica() {
    let test = test_cluster();
    run(async {
        let mut conn =
            Async::establish(&test.cluster.node("b").database_url(DATABASE)).await.unwrap();
        assert_eq!(insert(&mut conn, "one").await, Ok(1));
        assert_eq!(texts(&mut conn).await.unwrap(), ["one"]);
        let row: (String, Option<f64>, Option<Vec<u8>>) = notes::table
            .find(1)
            .select((notes::text, notes::score, notes::data))
            .get_result(&mut conn)
            .await
            .unwrap();
        assert_eq!(row, ("one".into(), Some(0.5), Some(b"\0x".to_vec())));
        let error = insert(&mut conn, "one").await.unwrap_err();
        assert!(error.to_string().contains("UNIQUE constraint failed: notes.text"), "{error}");
        let changed = diesel::update(notes::table.find(1))
            .set(notes::score.eq(None::<f64>))
            .execute(&mut conn);
        assert_eq!(changed.await, Ok(1));
        conn.batch_execute(
            "INSERT INTO notes (text) VALUES ('two'); DELETE FROM notes WHERE id = 1",
        )
        .await
        .unwrap();
        assert_eq!(texts(&mut conn).await.unwrap(), ["two"]);
    });
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let test = test_cluster();
    run(async {
        let mut conn = Async::new(test.conn("b"));
        conn.transaction(async |conn| {
            insert(conn, "one").await?;
            assert_eq!(texts(conn).await?, ["one"]);
            conn.transaction(async |conn| insert(conn, "two").await).await
        })
        .await
        .unwrap();
        let failed: QueryResult<()> = conn
            .transaction(async |conn| {
                insert(conn, "three").await?;
                Err(diesel::result::Error::RollbackTransaction)
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(texts(&mut conn).await.unwrap(), ["one", "two"]);
    });
}

#[test]
fn deadpool_and_bb8_pools_find_the_handle_by_path() {
    let test = test_cluster();
    run(async {
        let pool = deadpool::Pool::builder(manager(&test, "b")).max_size(4).build().unwrap();
        insert(&mut pool.get().await.unwrap(), "deadpool").await.unwrap();
        let pool = bb8::Pool::builder().max_size(4).build(manager(&test, "b")).await.unwrap();
        insert(&mut pool.get().await.unwrap(), "bb8").await.unwrap();
        assert_eq!(texts(&mut pool.get().await.unwrap()).await.unwrap(), ["deadpool", "bb8"]);
    });
    assert!(test.litefs("b").round_trips() >= 2, "they wrote through the handle");
}

#[test]
fn deadpool_and_bb8_pools_are_made_from_a_handle() {
    let mut test = test_cluster();
    test.stop("b");
    let handle = test.builder("b").start().unwrap();
    run(async {
        let managers = (handle.async_connection_manager(), handle.async_connection_manager());
        let trips = handle.round_trips();
        let one = deadpool::Pool::builder(managers.0).max_size(4).build().unwrap();
        let two = bb8::Pool::builder().max_size(4).build(managers.1).await.unwrap();
        for round in 0..3 {
            let text = format!("deadpool {round}");
            insert(&mut one.get().await.unwrap(), &text).await.unwrap();
            insert(&mut two.get().await.unwrap(), &format!("bb8 {round}")).await.unwrap();
        }
        assert_eq!(handle.round_trips(), trips + 6, "they wrote through the handle");
        // The pools keep the handle alive. The last one ends it, here on the runtime.
        drop(handle);
        assert!(matches!(
            test.builder("b").start(),
            Err(litefs_diesel::StartError::AlreadyStarted(_))
        ));
        assert_eq!(texts(&mut one.get().await.unwrap()).await.unwrap().len(), 6);
        assert_eq!(texts(&mut two.get().await.unwrap()).await.unwrap().len(), 6);
    });
    drop(test.builder("b").start().unwrap());
}

/// Opening and checking a connection may block, but must not block the runtime's thread.
#[test]
fn a_pool_of_a_handle_opens_connections_off_the_runtime() {
    let opened = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = std::sync::Arc::clone(&opened);
    let test = TestCluster::configured(&["a"], move |_, builder| {
        let hook = std::sync::Arc::clone(&hook);
        builder.on_connection(move |_| {
            hook.lock().unwrap().push(std::thread::current().id());
            Ok(())
        })
    });
    run(async {
        opened.lock().unwrap().clear();
        let manager = test.litefs("a").async_connection_manager();
        let pool = deadpool::Pool::builder(manager).max_size(1).build().unwrap();
        drop(pool.get().await.unwrap());
        let _: AsyncLiteFsConnection = test.litefs("a").establish_async().await.unwrap();
        let opened = opened.lock().unwrap();
        assert_eq!(opened.len(), 2);
        assert!(!opened.contains(&std::thread::current().id()));
    });
}

#[test]
fn a_pool_of_a_handle_replaces_a_connection_that_is_broken() {
    let test = test_cluster();
    run(async {
        let manager = test.litefs("b").async_connection_manager();
        let pool = deadpool::Pool::builder(manager).max_size(1).build().unwrap();
        let mut conn = pool.get().await.unwrap();
        // Diesel has not begun it, so diesel_async does not see it; the library's own check does.
        conn.batch_execute("BEGIN").await.unwrap();
        insert(&mut conn, "never").await.unwrap();
        drop(conn);
        let mut conn = pool.get().await.unwrap();
        insert(&mut conn, "one").await.unwrap();
        assert_eq!(texts(&mut conn).await.unwrap(), ["one"]);
    });
}

#[test]
fn a_dropped_transaction_is_rolled_back() {
    let test = test_cluster();
    run(async {
        let pool = deadpool::Pool::builder(manager(&test, "b")).max_size(1).build().unwrap();
        let mut conn = pool.get().await.unwrap();
        let unfinished = conn.transaction(async |conn| {
            insert(conn, "never").await?;
            std::future::pending::<QueryResult<()>>().await
        });
        // The transaction is open on the primary and holds the lock.
        assert!(tokio::time::timeout(Duration::from_millis(300), unfinished).await.is_err());
        drop(conn);
        let mut conn = pool.get().await.unwrap();
        let started = Instant::now();
        insert(&mut conn, "one").await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(3), "the lock was not released at once");
        assert_eq!(texts(&mut conn).await.unwrap(), ["one"]);
    });
}

/// While one task waits for a primary, other tasks on the same thread run.
#[test]
fn nothing_blocks_the_runtime() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.primary_timeout(Duration::from_millis(400))
    });
    test.schema(SCHEMA);
    test.cluster.lose_primary().unwrap();
    litefs_tests::wait_until("the loss", || test.litefs("b").role() == litefs_core::Role::Unknown);
    run(async {
        let pool = deadpool::Pool::builder(manager(&test, "b")).max_size(2).build().unwrap();
        let write = async {
            let mut conn = pool.get().await.unwrap();
            insert(&mut conn, "one").await.unwrap_err()
        };
        let (mut ticks, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
        let tick = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                longest = longest.max(last.elapsed());
                last = Instant::now();
                ticks += 1;
            }
        };
        let error = tokio::select! {
            error = write => error,
            () = tick => unreachable!("it never ends"),
        };
        assert_eq!(Failure::of(&error), Some(Failure::NoPrimary), "{error}");
        assert!(
            ticks > 10 && longest < Duration::from_millis(300),
            "{ticks} ticks, one took {longest:?}"
        );
    });
}

#[test]
fn x19_asynchronous_transactions_all_get_their_turn() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema("CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)");
    test.schema("INSERT INTO counters VALUES (1, 0)");
    run(async {
        let handles = ["a", "b", "b"].map(|node| test.litefs(node).clone());
        let tasks = handles.map(|litefs| {
            tokio::spawn(async move {
                let mut conn = litefs.establish_async().await.unwrap();
                for _ in 0..20 {
                    let counted = transaction_with_retry_async(&mut conn, 100, async |conn| {
                        let n: i32 =
                            counters::table.find(1).select(counters::n).first(conn).await?;
                        let next = diesel::update(counters::table.find(1));
                        next.set(counters::n.eq(n + 1)).execute(conn).await
                    });
                    assert_eq!(counted.await, QueryResult::Ok(1));
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let mut conn = test.litefs("a").establish_async().await.unwrap();
        let n = counters::table.find(1).select(counters::n).first::<i32>(&mut conn).await;
        assert_eq!(n, Ok(60));
    });
}
