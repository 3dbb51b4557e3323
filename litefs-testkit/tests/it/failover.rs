//! Primaries that change, die and return.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use litefs_testkit::Error;

use crate::support::{
    self, DB, Http, LIMIT, cluster, connect, count, eventually, insert, insert_rows, special,
};

const WHILE: Duration = Duration::from_millis(150);

#[test]
fn a_promotion_loses_nothing_and_connections_stay_usable() {
    let cluster = cluster(&["a", "b", "c"]);
    let (mut on_a, mut on_b) = (connect(cluster.node("a")), connect(cluster.node("b")));
    insert_rows(&mut on_a, 3);
    let before = cluster.node("a").position(DB);
    cluster.promote("b").expect("promote");
    assert_eq!(cluster.primary().map(|node| node.name()), Some("b"));
    assert_eq!(cluster.node("b").position(DB), before);
    assert!(insert(&mut on_a, "refused").is_err());
    assert_eq!(insert(&mut on_b, "taken"), Ok(1));
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!((count(&mut on_a), count(&mut connect(cluster.node("c")))), (4, 4));
    cluster.promote("a").expect("and back");
    assert_eq!(insert(&mut on_a, "taken"), Ok(1));
    assert!(insert(&mut on_b, "refused").is_err());
}

/// Stops the writers also when the test fails: the test would otherwise wait for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn promotions_under_write_load_lose_no_acknowledged_row() {
    let cluster = cluster(&["a", "b"]);
    let (mut on_a, mut on_b) = (connect(cluster.node("a")), connect(cluster.node("b")));
    let stop = &AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let stopped = Stop(stop);
        let writers: Vec<_> = [&mut on_a, &mut on_b]
            .into_iter()
            .map(|conn| {
                scope.spawn(move || {
                    let mut rows = 0;
                    while !stop.load(Ordering::Relaxed) {
                        match insert(conn, "row") {
                            Ok(more) => rows += more,
                            // A writer that retries without a pause starves the apply that makes it
                            // the primary.
                            Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                        }
                    }
                    rows
                })
            })
            .collect();
        for name in ["b", "a", "b", "a"] {
            let rows = cluster.node(name).position(DB).txid;
            cluster.promote(name).expect("promote");
            cluster
                .node(name)
                .wait_until(LIMIT, |status| status.positions[DB].txid > rows + 5)
                .expect("writes");
        }
        drop(stopped);
        writers.into_iter().map(|writer| writer.join().expect("writer")).sum::<usize>()
    });
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!((count(&mut on_a), count(&mut on_b)), (acknowledged as i64, acknowledged as i64));
}

#[test]
fn a_lost_tail_reuses_numbers_with_another_checksum() {
    let cluster = cluster(&["a", "b", "c"]);
    let mut on_a = connect(cluster.node("a"));
    insert_rows(&mut on_a, 5);
    cluster.wait_for_sync(LIMIT).expect("sync");
    let lost = cluster.node("a").position(DB);
    cluster.promote_losing_tail("b", 2).expect("promote");
    assert_eq!(cluster.node("b").position(DB).txid, lost.txid - 2);
    assert_eq!(cluster.node("a").position(DB), cluster.node("b").position(DB));
    let mut on_b = connect(cluster.node("b"));
    assert_eq!(
        (count(&mut on_a), count(&mut on_b), count(&mut connect(cluster.node("c")))),
        (3, 3, 3)
    );
    insert(&mut on_b, "other").expect("insert");
    insert(&mut on_b, "rows").expect("insert");
    let again = cluster.node("b").position(DB);
    assert_eq!(again.txid, lost.txid);
    assert_ne!(again.checksum, lost.checksum);
}

#[test]
fn a_stalled_replica_gets_all_but_the_lost_tail() {
    let cluster = cluster(&["a", "b"]);
    cluster.node("b").stall_replication().expect("fault");
    insert_rows(&mut connect(cluster.node("a")), 5);
    cluster.promote_losing_tail("b", 2).expect("promote");
    assert_eq!(count(&mut connect(cluster.node("b"))), 3);
    let error = cluster.promote_losing_tail("a", 99).expect_err("not so many");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

#[test]
fn unshipped_commits_of_a_dead_primary_are_lost() {
    let cluster = cluster(&["a", "b"]);
    let mut on_a = connect(cluster.node("a"));
    insert_rows(&mut on_a, 3);
    cluster.wait_for_sync(LIMIT).expect("sync");
    cluster.cut("a", "b").expect("cut");
    insert_rows(&mut on_a, 5);
    cluster.kill("a").expect("kill");
    cluster.promote("b").expect("promote");
    insert(&mut connect(cluster.node("b")), "new history").expect("insert");
    cluster.heal("a", "b").expect("heal");
    cluster.restart("a").expect("restart");
    assert_eq!(cluster.node("a").position(DB), cluster.node("b").position(DB));
    assert_eq!(count(&mut connect(cluster.node("a"))), 4);
    assert!(
        on_a.batch_execute("SELECT count(*) FROM item").is_err(),
        "connections from before stay dead"
    );
}

#[test]
fn a_killed_node_has_no_special_files_and_no_server() {
    let cluster = cluster(&["a", "b"]);
    let (replica, url) = (cluster.node("b"), cluster.node("b").http_url());
    let mut conn = connect(replica);
    let mut events = Http::request(&url, "GET", "/events");
    assert!(events.chunk().is_some());
    cluster.kill("b").expect("kill");
    for name in [".primary", ".lag", "app.db-pos"] {
        assert_eq!(special(replica, name), None, "{name}");
    }
    assert_eq!(events.chunk(), None, "the body is not terminated");
    eventually("refused", || {
        std::net::TcpStream::connect(url.strip_prefix("http://").expect("URL")).is_err()
    });
    assert!(conn.batch_execute("SELECT count(*) FROM item").is_err());
    assert!(matches!(replica.become_primary(), Err(Error::Dead(_))));
    cluster.restart("b").expect("restart");
    assert_eq!(replica.http_url(), url);
    assert_eq!(special(replica, ".primary").as_deref(), Some("a\n"));
}

#[test]
fn an_open_transaction_keeps_a_demoted_node_in_limbo() {
    let cluster = cluster(&["a", "b"]);
    let (old, new) = (cluster.node("a"), cluster.node("b"));
    let mut conn = connect(old);
    conn.batch_execute("BEGIN; INSERT INTO item (name) VALUES ('x')").expect("open");
    old.drain().expect("demote");
    new.become_primary().expect("promote");
    old.follow(new).expect("follow");
    insert(&mut connect(new), "elsewhere").expect("insert");
    let stuck = old.wait_until(WHILE, |status| status.connected);
    assert!(stuck.is_err() && special(old, ".primary").is_none() && !old.is_primary());
    assert_eq!(conn.batch_execute("COMMIT").expect_err("lost").to_string(), "disk I/O error");
    assert_eq!(old.take_refusal().expect("code"), 778);
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(special(old, ".primary").as_deref(), Some("b\n"));
    assert_eq!(count(&mut conn), 1);
}

#[test]
fn a_demotion_undoes_an_open_rollback_journal() {
    let cluster = cluster(&["a", "b"]);
    let mut conn = support::connect_to(cluster.node("a"), "other.db");
    conn.batch_execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("table");
    cluster.wait_for_sync(LIMIT).expect("sync");
    let before = cluster.node("a").position("other.db");
    conn.batch_execute("PRAGMA cache_size = 2; BEGIN").expect("begin");
    conn.batch_execute(
        "INSERT INTO t SELECT hex(randomblob(2000)) FROM \
         (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) \
         SELECT i FROM n)",
    )
    .expect("spills into the database file");
    cluster.node("a").lose_primary().expect("demote");
    conn.batch_execute("COMMIT").expect_err("refused");
    drop(conn);
    cluster.promote("b").expect("promote");
    assert_eq!(cluster.node("a").position("other.db"), before);
    let mut reader = support::connect_to(cluster.node("a"), "other.db");
    assert_eq!(support::number(&mut reader, "SELECT count(*) FROM t"), 1);
    assert_eq!(
        support::word(&mut reader, "integrity_check AS word FROM pragma_integrity_check"),
        "ok"
    );
}

#[test]
fn a_restart_undoes_the_journal_of_a_killed_node() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let mut conn = support::connect_to(node, "other.db");
    conn.batch_execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("table");
    let before = node.position("other.db");
    conn.batch_execute("PRAGMA cache_size = 2; BEGIN; UPDATE t SET x = 2").expect("begin");
    conn.batch_execute(
        "INSERT INTO t SELECT hex(randomblob(2000)) FROM \
         (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) \
         SELECT i FROM n)",
    )
    .expect("spills into the database file");
    cluster.kill("a").expect("kill");
    drop(conn);
    node.restart().expect("restart");
    assert_eq!(node.position("other.db"), before);
    cluster.promote("a").expect("promote");
    let mut conn = support::connect_to(node, "other.db");
    assert_eq!(support::number(&mut conn, "SELECT sum(x) FROM t"), 1);
    conn.batch_execute("INSERT INTO t VALUES (2)").expect("insert");
    assert_eq!(node.position("other.db").txid, before.txid + 1);
}

#[test]
fn litefs_promote_hands_the_lease_to_its_caller() {
    let cluster = cluster(&["a", "b", "c"]);
    assert!(
        Http::request(&cluster.node("b").http_url(), "POST", "/promote")
            .head
            .starts_with("HTTP/1.1 200 OK")
    );
    cluster.node("b").wait_until(LIMIT, |status| status.is_primary).expect("promoted");
    for name in ["a", "c"] {
        let follows = |status: &litefs_testkit::NodeStatus| {
            status.connected && status.primary.as_deref() == Some("b")
        };
        cluster.node(name).wait_until(LIMIT, follows).expect(name);
    }
    insert(&mut connect(cluster.node("b")), "row").expect("insert");
    cluster.wait_for_sync(LIMIT).expect("sync");
}

#[test]
fn replicas_of_a_dead_primary_flap_once_a_second() {
    let cluster = cluster(&["a", "b"]);
    let mut events = Http::request(&cluster.node("b").http_url(), "GET", "/events");
    assert_eq!(
        events.chunk().as_deref(),
        Some("{\"type\":\"init\",\"data\":{\"isPrimary\":false,\"hostname\":\"a\"}}\n")
    );
    cluster.kill("a").expect("kill");
    let (none, named) = (
        "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false}}\n",
        "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false,\"hostname\":\"a\"}}\n",
    );
    let began = std::time::Instant::now();
    for expected in [none, named, none, named, none] {
        assert_eq!(events.chunk().as_deref(), Some(expected));
    }
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    assert_eq!(special(cluster.node("b"), ".primary"), None);
    cluster.promote("b").expect("promote");
    assert_eq!(
        events.chunk().as_deref(),
        Some("{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":true}}\n")
    );
}

#[test]
fn a_node_can_announce_itself() {
    let cluster = cluster(&["a", "b"]);
    let node = cluster.node("b");
    let mut events = Http::request(&node.http_url(), "GET", "/events");
    assert!(events.chunk().is_some());
    node.follow(node).expect("fault");
    let named = "{\"type\":\"primaryChange\",\"data\":{\"isPrimary\":false,\"hostname\":\"b\"}}\n";
    eventually("its own name", || events.chunk().as_deref() == Some(named));
    assert!(!node.is_primary());
}

#[test]
fn without_a_primary_no_node_writes_or_names_one() {
    let cluster = cluster(&["a", "b"]);
    cluster.lose_primary().expect("fault");
    assert!(cluster.primary().is_none());
    for name in ["a", "b"] {
        let node = cluster.node(name);
        assert_eq!(special(node, ".primary"), None);
        assert!(insert(&mut connect(node), "row").is_err());
        assert_eq!(count(&mut connect(node)), 0, "reads go on");
    }
    cluster.promote("b").expect("promote");
    assert!(insert(&mut connect(cluster.node("b")), "row").is_ok());
}
