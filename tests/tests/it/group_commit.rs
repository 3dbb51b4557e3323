//! Concurrent writes share a commit: writes of other nodes, and of the primary itself if that is
//! enabled.

use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::{LiteFsConnection, LocalWrites};
use litefs_rpc::Limits;
use litefs_tests::TestCluster;

diesel::table! { items { id -> Integer, name -> Text, } }

const SCHEMA: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)";
const THREADS: usize = 16;
const WRITES: usize = 10;

/// Commits take long enough for all other writes to queue.
fn slow(test: &TestCluster) {
    test.schema(SCHEMA);
    test.cluster.node("a").set_commit_delay(Duration::from_millis(5)).unwrap();
}

fn insert(conn: &mut LiteFsConnection, name: &str) -> QueryResult<usize> {
    diesel::insert_into(items::table).values(items::name.eq(name)).execute(conn)
}

/// Every thread writes names of its own and one name that all threads write: all but the first get
/// an error, without an effect on other writes.
fn write_from(test: &TestCluster, nodes: &[&str]) {
    thread::scope(|scope| {
        for number in 0..THREADS {
            let mut conn = test.conn(nodes[number % nodes.len()]);
            scope.spawn(move || {
                for write in 0..WRITES {
                    assert_eq!(insert(&mut conn, &format!("{number}/{write}")), Ok(1));
                    match insert(&mut conn, &format!("shared {write}")) {
                        Ok(1)
                        | Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
}

/// Returns how many commits that took.
fn commits_of(test: &TestCluster, write: impl FnOnce()) -> u64 {
    let txid = || test.litefs("a").tracker().read_position().unwrap().txid.get();
    let before = txid();
    write();
    test.sync();
    for node in ["a", "b"] {
        let names: Vec<String> =
            items::table.select(items::name).load(&mut test.plain(node)).unwrap();
        assert_eq!(names.len(), THREADS * WRITES + WRITES, "each is stored once");
    }
    txid() - before
}

#[test]
fn writes_of_a_replica_share_commits() {
    let test = TestCluster::start(&["a", "b"]);
    slow(&test);
    let commits = commits_of(&test, || write_from(&test, &["b"]));
    assert!(commits < (THREADS * WRITES / 2) as u64, "{commits} commits");
}

#[test]
fn a_group_size_of_one_gives_each_write_its_commit() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        let mut limits = Limits::default();
        limits.group = 1;
        builder.limits(limits)
    });
    slow(&test);
    let commits = commits_of(&test, || write_from(&test, &["b"]));
    assert!(commits >= (THREADS * WRITES + WRITES) as u64, "{commits} commits");
}

fn grouped() -> TestCluster {
    TestCluster::configured(&["a", "b"], |_, builder| builder.local_writes(LocalWrites::Grouped))
}

#[test]
fn grouped_local_writes_share_commits_with_replicas() {
    let test = grouped();
    slow(&test);
    let commits = commits_of(&test, || write_from(&test, &["a", "b"]));
    assert!(commits < (THREADS * WRITES / 2) as u64, "{commits} commits");
}

#[test]
fn grouped_writes_and_local_transactions_both_succeed() {
    let test = grouped();
    test.schema(SCHEMA);
    thread::scope(|scope| {
        for number in 0..4 {
            let mut conn = test.conn("a");
            scope.spawn(move || {
                for write in 0..25 {
                    let transaction = |conn: &mut LiteFsConnection| {
                        insert(conn, &format!("one {number}/{write}"))?;
                        insert(conn, &format!("two {number}/{write}"))
                    };
                    conn.immediate_transaction(transaction).unwrap();
                }
            });
            let mut conn = test.conn("a");
            scope.spawn(move || {
                for write in 0..50 {
                    insert(&mut conn, &format!("alone {number}/{write}")).unwrap();
                    // The writes are visible at once, on this connection and on others.
                    let name = items::name.eq(format!("alone {number}/{write}"));
                    assert_eq!(items::table.filter(name).count().get_result(&mut conn), Ok(1_i64));
                }
            });
        }
    });
    assert_eq!(items::table.count().get_result(&mut test.plain("a")), Ok(400_i64));
}

#[test]
fn a_grouped_write_is_forwarded_to_the_next_primary() {
    let test = grouped();
    test.schema(SCHEMA);
    let mut conn = test.conn("a");
    insert(&mut conn, "here").unwrap();
    let trips = test.litefs("a").round_trips();
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    insert(&mut conn, "there").unwrap();
    assert!(test.litefs("a").round_trips() > trips, "it was forwarded");
    test.cluster.promote("a").unwrap();
    test.wait_for_roles();
    insert(&mut conn, "here again").unwrap();
    conn.batch_execute("INSERT INTO items (name) VALUES ('a script')").unwrap();
    let names: Vec<String> =
        items::table.order(items::id).select(items::name).load(&mut conn).unwrap();
    assert_eq!(names, ["here", "there", "here again", "a script"]);
}
