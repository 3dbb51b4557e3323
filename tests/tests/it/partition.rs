//! Nodes that are cut off from each other, or from their own LiteFS, while the primary changes:
//! scenarios F8 and F10 of the acceptance list.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::prelude::*;
use litefs_core::{Role, RoleKind};
use litefs_diesel::{Failure, LiteFsConnection, LostWrites};
use litefs_testkit::{EventStreamFault, Relay, Traffic};
use litefs_tests::{DATABASE, TestCluster, relay, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const NODES: [&str; 3] = ["a", "b", "c"];
const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn add(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

fn texts(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<String> {
    notes::table.select(notes::text).order(notes::id).load(conn).unwrap()
}

type Reports = Arc<Mutex<HashMap<String, Vec<LostWrites>>>>;

/// Three nodes; "a" is reached through a relay.
fn test_cluster(relay: &Relay) -> (TestCluster, Reports) {
    let reports = Reports::default();
    let test = TestCluster::behind(&NODES, &[("a", relay)], |name, builder| {
        let (reports, name) = (Arc::clone(&reports), name.to_owned());
        builder.forward_timeout(Duration::from_secs(10)).on_lost_writes(move |lost| {
            reports.lock().unwrap().entry(name.clone()).or_default().push(lost.clone());
        })
    });
    test.schema(SCHEMA);
    (test, reports)
}

/// Cuts "a" off from the other nodes, for LiteFS's traffic and the library's, without a notice to
/// any node.
fn part(test: &TestCluster, relay: &Relay) {
    for other in ["b", "c"] {
        test.cluster.cut("a", other).unwrap();
    }
    relay.set(Traffic::Capture, Traffic::Capture);
}

fn heal(test: &TestCluster, relay: &Relay) {
    for other in ["b", "c"] {
        test.cluster.heal("a", other).unwrap();
    }
    relay.set(Traffic::Pass, Traffic::Pass);
}

#[test]
fn f8_a_partition_keeps_the_majority_and_reports_losses() {
    let relay = relay();
    let (test, reports) = test_cluster(&relay);
    add(&mut test.conn("c"), "before").unwrap();
    test.sync();
    part(&test, &relay);
    let (b, mut on_c) = (test.cluster.node("b"), test.conn("c"));
    std::thread::scope(|scope| {
        let across = scope.spawn(|| add(&mut on_c, "across"));
        wait_until("the request that does not arrive", || relay.captured() >= 1);
        assert_eq!(add(&mut test.conn("a"), "alone"), Ok(1), "it still acts as the primary");
        b.become_primary().unwrap();
        test.cluster.node("c").follow(b).unwrap();
        assert_eq!(across.join().unwrap(), Ok(1), "the new primary applied it");
    });
    assert_eq!(test.litefs("a").role(), Role::Primary, "it does not know of the new primary");
    wait_until("the new primary", || test.litefs("b").role() == Role::Primary);
    add(&mut test.conn("b"), "meanwhile").unwrap();
    heal(&test, &relay);
    test.cluster.node("a").follow(b).unwrap();
    wait_until("its role", || test.litefs("a").role().kind() == RoleKind::Replica);
    test.sync();
    add(&mut test.conn("a"), "after").unwrap();
    test.sync();
    for node in NODES {
        assert_eq!(
            texts(&mut test.plain(node)),
            ["before", "across", "meanwhile", "after"],
            "{node}"
        );
    }
    wait_until("the report", || reports.lock().unwrap().contains_key("a"));
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1, "the others lost nothing: {reports:?}");
    let [report] = reports["a"].as_slice() else { panic!("{reports:?}") };
    assert_eq!((report.primary.as_str(), report.writes.len()), ("b", 1), "{report:?}");
}

/// Seed 104 of the nemesis, at 33.8 s: when the old primary is reconnected, another node has been
/// the primary and is at a higher position than it ever was.
#[test]
fn f7_a_loss_is_reported_after_a_second_failover() {
    let relay = relay();
    let (test, reports) = test_cluster(&relay);
    test.sync();
    part(&test, &relay);
    add(&mut test.conn("a"), "alone").unwrap();
    let (b, c) = (test.cluster.node("b"), test.cluster.node("c"));
    b.become_primary().unwrap();
    c.follow(b).unwrap();
    wait_until("the first new primary", || add(&mut test.conn("c"), "x").is_ok());
    for _ in 0..5 {
        add(&mut test.conn("b"), "y").unwrap();
    }
    let far = b.position(DATABASE);
    wait_until("what is to be kept", || c.position(DATABASE) == far);
    c.become_primary().unwrap();
    b.follow(c).unwrap();
    heal(&test, &relay);
    test.cluster.node("a").follow(c).unwrap();
    wait_until("the report", || reports.lock().unwrap().contains_key("a"));
    let reports = reports.lock().unwrap();
    let [report] = reports["a"].as_slice() else { panic!("{reports:?}") };
    assert_eq!((report.primary.as_str(), report.writes.len()), ("c", 1), "{report:?}");
    assert_eq!(reports.len(), 1, "the others lost nothing: {reports:?}");
}

#[test]
fn f8_a_partition_without_a_failover_only_delays() {
    let relay = relay();
    let (test, reports) = test_cluster(&relay);
    add(&mut test.conn("b"), "before").unwrap();
    part(&test, &relay);
    let mut on_b = test.conn("b");
    std::thread::scope(|scope| {
        let across = scope.spawn(|| add(&mut on_b, "across"));
        wait_until("the request that does not arrive", || relay.captured() >= 1);
        add(&mut test.conn("a"), "alone").unwrap();
        heal(&test, &relay);
        // As TCP does after a timeout: data under way is lost with its connection.
        relay.cut();
        assert_eq!(across.join().unwrap(), Ok(1));
    });
    test.sync();
    for node in NODES {
        assert_eq!(texts(&mut test.plain(node)), ["before", "alone", "across"], "{node}");
    }
    assert!(reports.lock().unwrap().is_empty());
}

/// Writes on one node until it is stopped. Returns the acknowledged rows.
fn write_on(test: &TestCluster, node: &str, stop: &AtomicBool) -> Vec<String> {
    let mut conn = test.conn(node);
    let mut done = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{node} {number}");
        match add(&mut conn, &text) {
            Ok(_) => done.push(text),
            Err(error) => assert!(Failure::of(&error).is_some(), "{node}: {error}"),
        }
    }
    done
}

#[test]
fn f10_a_failover_is_noticed_without_the_event_stream() {
    for fault in [EventStreamFault::Silent, EventStreamFault::Refuse, EventStreamFault::Hang] {
        let test = TestCluster::start(&NODES);
        test.schema(SCHEMA);
        for node in NODES {
            test.cluster.node(node).set_event_stream_fault(fault).unwrap();
        }
        let stop = AtomicBool::new(false);
        let (test, stop) = (&test, &stop);
        let acknowledged: Vec<String> = std::thread::scope(|scope| {
            let writers = NODES.map(|node| scope.spawn(move || write_on(test, node, stop)));
            test.cluster.promote("b").unwrap();
            let rows = || texts(&mut test.plain("c")).len();
            let before = rows();
            let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                test.wait_for_roles();
                wait_until("writes after the failover", || rows() > before + 30);
            }));
            stop.store(true, Ordering::Relaxed);
            let written = writers.map(|writer| writer.join().unwrap());
            noticed.unwrap_or_else(|_| panic!("{fault:?}: the failover was not noticed"));
            written.into_iter().flatten().collect()
        });
        test.sync();
        let there = texts(&mut test.plain("a"));
        for text in &acknowledged {
            assert_eq!(there.iter().filter(|row| *row == text).count(), 1, "{fault:?}: {text}");
        }
        for node in NODES {
            let after = acknowledged.iter().rev().find(|text| text.starts_with(node));
            assert!(after.is_some(), "{fault:?}: {node} wrote nothing");
            assert_eq!(texts(&mut test.plain(node)), there, "{fault:?}: {node}");
        }
    }
}
