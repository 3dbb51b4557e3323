//! Failovers that readers must not notice, found by the nemesis (`--bin nemesis`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_core::RoleKind;
use litefs_diesel::{LiteFsConnection, LostWrites};
use litefs_testkit::InfoFault;
use litefs_tests::{DATABASE, TestCluster, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn add(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

/// Seed 32 of the nemesis, at 37.8 s. The local file is ahead in numbers, but in a history that has
/// ended.
#[test]
fn r7_a_replica_ahead_of_a_new_primary_reads_new_history() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    let (b, c) = (test.cluster.node("b"), test.cluster.node("c"));
    // All nodes know the address of each server.
    for primary in ["b", "a"] {
        test.cluster.promote(primary).unwrap();
        test.wait_for_roles();
    }
    b.stall_replication().unwrap();
    let mut primary = test.conn("a");
    for text in ["one", "two", "three", "four"] {
        add(&mut primary, text).unwrap();
    }
    let far = test.cluster.node("a").position(DATABASE);
    let has_come = |position: &litefs_testkit::Position| position.txid >= far.txid;
    c.wait_until(litefs_tests::TIMEOUT, |status| {
        status.positions.get(DATABASE).is_some_and(has_come)
    })
    .unwrap();
    drop(primary);
    test.cluster.kill("a").unwrap();
    // Replication from the new primary is slow: node c stays where it was.
    c.stall_replication().unwrap();
    b.become_primary().unwrap();
    c.follow(b).unwrap();
    wait_until("the new primary", || test.litefs("b").role().kind() == RoleKind::Primary);
    let mut conn = test.conn("c");
    wait_until("a write through the new primary", || add(&mut conn, "mine").is_ok());
    let texts: Vec<String> = notes::table.select(notes::text).load(&mut conn).unwrap();
    assert_eq!(texts, ["mine"], "the write of this process in the current history");
}

#[test]
fn f7_lost_acknowledged_writes_are_reported() {
    let reports: Mutex<HashMap<String, Vec<LostWrites>>> = Mutex::default();
    let reports = Arc::new(reports);
    let sink = Arc::clone(&reports);
    let test = TestCluster::configured(&["a", "b", "c"], move |name, builder| {
        let (sink, name) = (Arc::clone(&sink), name.to_owned());
        builder.on_lost_writes(move |lost| {
            sink.lock().unwrap().entry(name.clone()).or_default().push(lost.clone());
        })
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("c");
    add(&mut conn, "kept").unwrap();
    add(&mut test.conn("a"), "kept too").unwrap();
    test.sync();
    for node in ["b", "c"] {
        test.cluster.node(node).stall_replication().unwrap();
    }
    let before = test.cluster.node("a").position(DATABASE).txid;
    add(&mut conn, "lost").unwrap();
    conn.transaction(|conn| add(conn, "lost in a transaction")).unwrap();
    add(&mut test.conn("a"), "lost on the primary itself").unwrap();
    test.cluster.node("b").resume_replication().ok();
    for node in ["b", "c"] {
        test.cluster.node(node).resume_replication().unwrap();
    }
    test.cluster.promote_losing_tail("b", 3).unwrap();
    test.wait_for_roles();
    wait_until("the reports", || reports.lock().unwrap().len() == 2);
    let reports = reports.lock().unwrap();
    let [from_c] = reports["c"].as_slice() else { panic!("{reports:?}") };
    assert_eq!((from_c.primary.as_str(), from_c.writes.len()), ("b", 2), "{from_c:?}");
    for write in &from_c.writes {
        assert_eq!(write.acknowledged_by, "a");
        assert!(write.request.is_some() && write.position.txid.get() > before, "{write:?}");
        let outcome = test.litefs("c").outcome(write.request.unwrap());
        assert_eq!(outcome, Ok(litefs_diesel::Outcome::NotApplied));
    }
    let [from_a] = reports["a"].as_slice() else { panic!("{reports:?}") };
    assert_eq!(from_a.writes.len(), 1, "{from_a:?}");
    assert_eq!(from_a.writes[0].request, None);
}

/// A node learns its name from LiteFS at its first promotion, perhaps after its first writes.
#[test]
fn f7_writes_made_before_the_primary_knew_its_name_are_not_lost() {
    let cluster =
        litefs_testkit::Cluster::builder().nodes(["a", "b"]).database(DATABASE).start().unwrap();
    let reports: Arc<Mutex<Vec<LostWrites>>> = Arc::default();
    let [a, b] = ["a", "b"].map(|name| {
        let (node, reports) = (cluster.node(name), Arc::clone(&reports));
        let http_url = node.http_url();
        litefs_diesel::LiteFs::builder(&node.database_url(DATABASE))
            .listen("127.0.0.1:0".parse().unwrap())
            .tracker(|tracker| tracker.http_url(&http_url))
            .on_lost_writes(move |lost| reports.lock().unwrap().push(lost.clone()))
            .start()
            .unwrap()
    });
    a.establish().unwrap().batch_execute(SCHEMA).unwrap();
    cluster.wait_for_sync(litefs_tests::TIMEOUT).unwrap();
    cluster.node("b").set_info_fault(InfoFault::Refuse).unwrap();
    cluster.promote("b").unwrap();
    wait_until("the promotion", || b.role().kind() == RoleKind::Primary);
    let mut conn = b.establish().unwrap();
    add(&mut conn, "kept").unwrap();
    assert_eq!(b.tracker().own_name(), None);
    cluster.node("b").set_info_fault(InfoFault::None).unwrap();
    wait_until("its name", || {
        let name: Option<String> = diesel::sql_query("SELECT node FROM _litefs_primary")
            .load::<Node>(&mut conn)
            .unwrap()
            .pop()
            .map(|n| n.node);
        name.as_deref() == Some("b")
    });
    cluster.wait_for_sync(litefs_tests::TIMEOUT).unwrap();
    add(&mut conn, "lost").unwrap();
    cluster.promote_losing_tail("a", 1).unwrap();
    wait_until("the report", || !reports.lock().unwrap().is_empty());
    let reports = reports.lock().unwrap();
    let [report] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!((report.primary.as_str(), report.writes.len()), ("a", 1), "{report:?}");
    assert_eq!(report.writes[0].acknowledged_by, "b");
}

#[derive(QueryableByName)]
struct Node {
    #[diesel(sql_type = diesel::sql_types::Text)]
    node: String,
}
