//! Handoffs, reads that yield to replication, and writes that are acknowledged once replicas have
//! them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_core::Role;
use litefs_diesel::{Consistency, Durability, Failure, LiteFsConnection};
use litefs_tests::{TIMEOUT, TestCluster, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn insert(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

fn count(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

/// Sets the flag that ends the threads, also when an assertion fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn f12_a_handoff_under_load_loses_and_fails_nothing() {
    const NODES: [&str; 3] = ["a", "b", "c"];
    let test = TestCluster::start(&NODES);
    test.schema(SCHEMA);
    let stop = AtomicBool::new(false);
    let written: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = NODES
            .into_iter()
            .flat_map(|node| [(node, false), (node, true)])
            .map(|(node, in_transaction)| {
                let (test, stop) = (&test, &stop);
                scope.spawn(move || {
                    let mut conn = test.conn(node);
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let text = format!("{node} {in_transaction} {written}");
                        let done = if in_transaction {
                            conn.transaction_with_retry(20, |conn| insert(conn, &text))
                        } else {
                            insert(&mut conn, &text)
                        };
                        done.unwrap_or_else(|error| panic!("{node} {in_transaction}: {error}"));
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        // Writes on the primary's file without the library, whichever node is the primary.
        let strangers = scope.spawn(|| {
            let mut conns = NODES.map(|node| test.plain(node));
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                for conn in &mut conns {
                    let text = notes::text.eq(format!("a stranger's {written}"));
                    match diesel::insert_into(notes::table).values(text).execute(conn) {
                        Ok(_) => written += 1,
                        // LiteFS rejects it on the other nodes, and needs a moment without
                        // connections to apply.
                        Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                    }
                }
            }
            written
        });
        let stop_at_end = StopAtEnd(&stop);
        // Requested on the primary, on the successor and on the third node.
        for (asked, to) in [("a", "b"), ("c", "c"), ("b", "a"), ("a", "b"), ("c", "a")] {
            let before = count(&mut test.plain(to));
            wait_until("writes", || count(&mut test.plain(to)) > before + 5);
            let started = Instant::now();
            let handed = test.litefs(asked).handoff(Some(to));
            assert_eq!(
                handed.as_deref(),
                Ok(to),
                "requested on {asked} after {:?}",
                started.elapsed()
            );
            wait_until("the role", || test.litefs(to).role() == Role::Primary);
        }
        drop(stop_at_end);
        let ours: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        ours + strangers.join().unwrap()
    });
    test.sync();
    for node in NODES {
        let mut conn = test.plain(node);
        assert_eq!(count(&mut conn), i64::try_from(written).unwrap(), "{node}");
        let distinct =
            diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(DISTINCT text) FROM notes");
        assert_eq!(
            distinct.get_result::<i64>(&mut conn),
            Ok(i64::try_from(written).unwrap()),
            "{node}"
        );
    }
}

#[test]
fn an_impossible_handoff_leaves_the_primary_in_place() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.forward_timeout(Duration::from_millis(500))
    });
    test.schema(SCHEMA);
    let refused = |to: Option<&str>| {
        let error = test.litefs("b").handoff(to).unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::HandoffFailed), "{error}");
        assert_eq!(test.litefs("a").role(), Role::Primary);
        insert(&mut test.conn("a"), "on the primary").unwrap();
        insert(&mut test.conn("b"), "forwarded").unwrap();
        error.to_string()
    };
    assert!(refused(Some("nobody")).contains("nobody"));
    // The successor does not receive every commit in time.
    test.cluster.node("b").stall_replication().unwrap();
    insert(&mut test.conn("a"), "not shipped").unwrap();
    let error = test.litefs("a").handoff(Some("b")).unwrap_err();
    assert!(
        matches!(Failure::of(&error), Some(Failure::HandoffFailed | Failure::OutcomeUnknown)),
        "{error}"
    );
    assert_eq!(test.litefs("a").role(), Role::Primary);
    test.cluster.node("b").resume_replication().unwrap();
    test.sync();
    assert_eq!(count(&mut test.plain("b")), 3);
    assert_eq!(test.litefs("a").handoff(None).as_deref(), Ok("b"));
}

/// The testkit needs a moment without readers to apply, as LiteFS does.
#[test]
fn frequent_readers_do_not_starve_replication() {
    let replicated = |pause: Duration, writes: usize| {
        let test = TestCluster::configured(&["a", "b"], |_, builder| builder.read_pause(pause));
        test.schema(SCHEMA);
        test.schema(
            "INSERT INTO notes (text) WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL \
             SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n",
        );
        let stop = AtomicBool::new(false);
        let median = std::thread::scope(|scope| {
            let stop_at_end = StopAtEnd(&stop);
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut conn = test.conn("b");
                    conn.set_consistency(Consistency::Eventual);
                    while !stop.load(Ordering::Relaxed) {
                        count(&mut conn);
                    }
                });
            }
            let mut writer = test.conn("a");
            let mut times = Vec::new();
            for number in 0..writes {
                insert(&mut writer, &number.to_string()).unwrap();
                let started = Instant::now();
                let here = test.litefs("a").position().unwrap();
                let tracker = test.litefs("b").tracker();
                while tracker.read_position().unwrap().txid < here.txid
                    && started.elapsed() < TIMEOUT
                {
                    std::thread::park_timeout(Duration::from_micros(200));
                }
                times.push(started.elapsed());
            }
            drop(stop_at_end);
            times.sort();
            times[writes / 2]
        });
        (median, test.litefs("b").held_reads())
    };
    let (median, (held, _)) = replicated(Duration::from_millis(20), 60);
    assert!(held > 0, "no read was held back");
    // Without the pauses the testkit needs half a second and more, as LiteFS does.
    assert!(median < Duration::from_millis(250), "{median:?}");
    let (_, (held, _)) = replicated(Duration::ZERO, 1);
    assert_eq!(held, 0, "the pauses can be disabled");
}

#[test]
fn a_write_is_acknowledged_once_replicas_have_it() {
    let durable = |durability| {
        let test = TestCluster::configured(&["a", "b", "c"], |_, builder| {
            builder.durability(durability).forward_timeout(Duration::from_millis(600))
        });
        test.cluster.node("b").set_replication_delay(Duration::from_millis(100)).unwrap();
        test.conn("a").batch_execute(SCHEMA).unwrap();
        test
    };
    let test = durable(Durability::Here);
    insert(&mut test.conn("b"), "x").unwrap();
    assert_eq!(count(&mut test.plain("b")), 1, "the reader does not wait");
    test.conn("b").transaction(|conn| insert(conn, "y")).unwrap();
    assert_eq!(count(&mut test.plain("b")), 2);

    let test = durable(Durability::Replicas(2));
    for node in ["a", "b", "c"] {
        insert(&mut test.conn(node), node).unwrap();
        assert_eq!(count(&mut test.plain("b")), count(&mut test.plain("a")), "{node}");
        assert_eq!(count(&mut test.plain("c")), count(&mut test.plain("a")), "{node}");
    }
    test.cluster.node("b").stall_replication().unwrap();
    for node in ["a", "c"] {
        let error = insert(&mut test.conn(node), "too few").unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::NotReplicated), "{node}: {error}");
    }
    assert_eq!(count(&mut test.plain("a")), 5, "they are applied nevertheless");
}

#[test]
fn f12_a_primary_that_steps_down_leaves_a_successor() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    insert(&mut test.conn("a"), "before").unwrap();
    assert_eq!(test.litefs("b").step_down(), Ok(None), "it is not the primary");
    assert_eq!(test.litefs("a").step_down(), Ok(Some("b".to_owned())));
    test.stop("a");
    wait_until("b to be the primary", || test.litefs("b").role() == Role::Primary);
    let mut conn = test.conn("b");
    insert(&mut conn, "after").unwrap();
    assert_eq!(count(&mut conn), 2);
}
