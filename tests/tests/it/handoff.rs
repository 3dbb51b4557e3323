//! Giving the primary's place away, replication that gets air, and writes that are acknowledged when replicas have them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_diesel::core::Role;
use litefs_diesel::{Consistency, Durability, Failure, LiteFsConnection};
use litefs_tests::{Bed, PATIENCE, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn insert(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

fn count(conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>) -> i64 {
    notes::table.count().get_result(conn).unwrap()
}

/// Ends the threads that look at it, also when an assertion fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn f12_a_handoff_under_load_from_all_nodes_loses_nothing_and_fails_nothing() {
    const NODES: [&str; 3] = ["a", "b", "c"];
    let bed = Bed::start(&NODES);
    bed.schema(SCHEMA);
    let stop = AtomicBool::new(false);
    let written: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = NODES
            .into_iter()
            .flat_map(|node| [(node, false), (node, true)])
            .map(|(node, in_transaction)| {
                let (bed, stop) = (&bed, &stop);
                scope.spawn(move || {
                    let mut conn = bed.conn(node);
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
        // Somebody who knows nothing of us writes on the primary's file, whoever that is.
        let strangers = scope.spawn(|| {
            let mut conns = NODES.map(|node| bed.plain(node));
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                for conn in &mut conns {
                    let text = notes::text.eq(format!("a stranger's {written}"));
                    match diesel::insert_into(notes::table).values(text).execute(conn) {
                        Ok(_) => written += 1,
                        // On the other nodes LiteFS says no, and needs a moment without anybody to apply.
                        Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                    }
                }
            }
            written
        });
        let stop_at_end = StopAtEnd(&stop);
        // Asked for on the primary, on the successor and on a bystander.
        for (asked, to) in [("a", "b"), ("c", "c"), ("b", "a"), ("a", "b"), ("c", "a")] {
            let before = count(&mut bed.plain(to));
            wait_until("writes", || count(&mut bed.plain(to)) > before + 5);
            let started = Instant::now();
            let handed = bed.litefs(asked).handoff(Some(to));
            assert_eq!(handed.as_deref(), Ok(to), "asked on {asked} after {:?}", started.elapsed());
            wait_until("the role", || bed.litefs(to).role() == Role::Primary);
        }
        drop(stop_at_end);
        let ours: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        ours + strangers.join().unwrap()
    });
    bed.sync();
    for node in NODES {
        let mut conn = bed.plain(node);
        assert_eq!(count(&mut conn), i64::try_from(written).unwrap(), "{node}");
        let distinct =
            diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(DISTINCT text) FROM notes");
        assert_eq!(distinct.get_result::<i64>(&mut conn), Ok(i64::try_from(written).unwrap()), "{node}");
    }
}

#[test]
fn a_handoff_that_cannot_be_leaves_the_primary_where_it_is() {
    let bed = Bed::configured(&["a", "b"], |_, builder| builder.forward_timeout(Duration::from_millis(500)));
    bed.schema(SCHEMA);
    let refused = |to: Option<&str>| {
        let error = bed.litefs("b").handoff(to).unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::HandoffFailed), "{error}");
        assert_eq!(bed.litefs("a").role(), Role::Primary);
        insert(&mut bed.conn("a"), "on the primary").unwrap();
        insert(&mut bed.conn("b"), "forwarded").unwrap();
        error.to_string()
    };
    assert!(refused(Some("nobody")).contains("nobody"));
    // The successor does not get every commit in time.
    bed.cluster.node("b").stall_replication().unwrap();
    insert(&mut bed.conn("a"), "not shipped").unwrap();
    let error = bed.litefs("a").handoff(Some("b")).unwrap_err();
    assert!(matches!(Failure::of(&error), Some(Failure::HandoffFailed | Failure::OutcomeUnknown)), "{error}");
    assert_eq!(bed.litefs("a").role(), Role::Primary);
    bed.cluster.node("b").resume_replication().unwrap();
    bed.sync();
    assert_eq!(count(&mut bed.plain("b")), 3);
    assert_eq!(bed.litefs("a").handoff(None).as_deref(), Ok("b"));
}

/// As LiteFS's, the testkit's apply needs a moment without readers.
#[test]
fn tight_readers_of_a_node_that_writes_nothing_do_not_hold_up_replication() {
    let replicated = |pause: Duration, writes: usize| {
        let bed = Bed::configured(&["a", "b"], |_, builder| builder.read_pause(pause));
        bed.schema(SCHEMA);
        bed.schema("INSERT INTO notes (text) WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n");
        let stop = AtomicBool::new(false);
        let median = std::thread::scope(|scope| {
            let stop_at_end = StopAtEnd(&stop);
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut conn = bed.conn("b");
                    conn.set_consistency(Consistency::Eventual);
                    while !stop.load(Ordering::Relaxed) {
                        count(&mut conn);
                    }
                });
            }
            let mut writer = bed.conn("a");
            let mut times = Vec::new();
            for number in 0..writes {
                insert(&mut writer, &number.to_string()).unwrap();
                let started = Instant::now();
                let here = bed.litefs("a").token().unwrap();
                let tracker = bed.litefs("b").tracker();
                while tracker.read_position().unwrap().txid < here.txid && started.elapsed() < PATIENCE {
                    std::thread::park_timeout(Duration::from_micros(200));
                }
                times.push(started.elapsed());
            }
            drop(stop_at_end);
            times.sort();
            times[writes / 2]
        });
        (median, bed.litefs("b").held_reads())
    };
    let (median, (held, _)) = replicated(Duration::from_millis(20), 60);
    assert!(held > 0, "no read was held back");
    // Without air the testkit needs half a second and more, as LiteFS does.
    assert!(median < Duration::from_millis(250), "{median:?}");
    let (_, (held, _)) = replicated(Duration::ZERO, 1);
    assert_eq!(held, 0, "it can be switched off");
}

#[test]
fn a_write_is_acknowledged_when_those_have_it_that_must() {
    let durable = |durability| {
        let bed = Bed::configured(&["a", "b", "c"], |_, builder| {
            builder.durability(durability).forward_timeout(Duration::from_millis(600))
        });
        bed.cluster.node("b").set_replication_delay(Duration::from_millis(100)).unwrap();
        bed.conn("a").batch_execute(SCHEMA).unwrap();
        bed
    };
    let bed = durable(Durability::Here);
    insert(&mut bed.conn("b"), "x").unwrap();
    assert_eq!(count(&mut bed.plain("b")), 1, "no wait is left for the reader");
    bed.conn("b").transaction(|conn| insert(conn, "y")).unwrap();
    assert_eq!(count(&mut bed.plain("b")), 2);

    let bed = durable(Durability::Replicas(2));
    for node in ["a", "b", "c"] {
        insert(&mut bed.conn(node), node).unwrap();
        assert_eq!(count(&mut bed.plain("b")), count(&mut bed.plain("a")), "{node}");
        assert_eq!(count(&mut bed.plain("c")), count(&mut bed.plain("a")), "{node}");
    }
    bed.cluster.node("b").stall_replication().unwrap();
    for node in ["a", "c"] {
        let error = insert(&mut bed.conn(node), "too few").unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::NotReplicated), "{node}: {error}");
    }
    assert_eq!(count(&mut bed.plain("a")), 5, "they are applied all the same");
}

#[test]
fn f12_a_primary_that_steps_down_before_it_stops_leaves_a_primary_behind() {
    let mut bed = Bed::start(&["a", "b"]);
    bed.schema(SCHEMA);
    insert(&mut bed.conn("a"), "before").unwrap();
    assert_eq!(bed.litefs("b").step_down(), Ok(None), "it has nothing to give away");
    assert_eq!(bed.litefs("a").step_down(), Ok(Some("b".to_owned())));
    bed.stop("a");
    wait_until("b to be the primary", || bed.litefs("b").role() == Role::Primary);
    let mut conn = bed.conn("b");
    insert(&mut conn, "after").unwrap();
    assert_eq!(count(&mut conn), 2);
}
