//! Mounts that die, full disks, held locks: each error names its cause.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::ConnectionError;
use litefs_core::{Presence, RoleKind};
use litefs_diesel::{Durability, Failure, LiteFsConnection, LocalWrites};
use litefs_testkit::DiskFault;
use litefs_tests::{TestCluster, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

#[diesel::declare_sql_function]
extern "SQL" {
    fn shout(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

/// Longer than any of these tests takes if nothing is wrong.
const SHORT: Duration = Duration::from_millis(600);

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn add(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

fn texts(conn: &mut LiteFsConnection) -> QueryResult<Vec<String>> {
    notes::table.select(notes::text).order(notes::id).load(conn)
}

fn role(test: &TestCluster, node: &str) -> RoleKind {
    test.litefs(node).role().kind()
}

/// Runs `work` on a thread while node a, whose mount is gone, detects that and node b takes over.
fn while_b_takes_over<T: Send>(test: &TestCluster, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        wait_until("node a to notice", || role(test, "a") != RoleKind::Primary);
        test.cluster.node("b").become_primary().unwrap();
        working.join().unwrap()
    })
}

#[test]
fn f15_a_forwarded_write_survives_the_primarys_mount() {
    // Once with a connection that the primary has open already, once with a new one.
    for used in [true, false] {
        let test = test_cluster();
        let mut conn = test.conn("b");
        if used {
            add(&mut conn, "before").unwrap();
            test.sync();
        }
        test.cluster.node("a").lose_mount().unwrap();
        let added = while_b_takes_over(&test, || add(&mut conn, "after"));
        assert_eq!(added, Ok(1), "used {used}");
        assert_eq!(texts(&mut conn).unwrap().last().map(String::as_str), Some("after"));
    }
}

#[test]
fn f15_a_group_survives_the_primarys_mount() {
    let test = test_cluster();
    test.cluster.node("a").lose_mount().unwrap();
    let conns: Vec<_> = (0..8).map(|_| test.conn("b")).collect();
    let added = while_b_takes_over(&test, || {
        let writers =
            conns.into_iter().map(|mut conn| std::thread::spawn(move || add(&mut conn, "x")));
        let writers: Vec<_> = writers.collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(added.iter().all(|added| *added == Ok(1)), "{added:?}");
    assert_eq!(texts(&mut test.conn("b")).unwrap().len(), 8);
}

#[test]
fn f15_a_transaction_opens_on_the_next_primary() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    test.cluster.node("a").lose_mount().unwrap();
    let added = while_b_takes_over(&test, || conn.immediate_transaction(|conn| add(conn, "x")));
    assert_eq!(added, Ok(1));
}

#[test]
fn f15_an_open_transaction_continues_on_the_next_primary() {
    for at_commit in [true, false] {
        let test = test_cluster();
        let mut conn = test.conn("b");
        conn.immediate_transaction(|conn| {
            add(conn, "x")?;
            test.cluster.node("a").lose_mount().unwrap();
            test.cluster.promote("b").unwrap();
            if at_commit { Ok(1) } else { add(conn, "y") }
        })
        .unwrap();
        let expected = if at_commit { 1 } else { 2 };
        assert_eq!(texts(&mut conn).unwrap().len(), expected);
    }
}

#[test]
fn f15_a_read_on_the_primary_survives_its_mount() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    test.cluster.node("a").lose_mount().unwrap();
    let read = while_b_takes_over(&test, || conn.on_primary(texts));
    assert_eq!(read, Ok(vec![]));
}

#[test]
fn a_read_of_a_lost_mount_is_not_served_from_caches() {
    let test = test_cluster();
    let node = test.cluster.node("b");
    node.set_cached_reads(true).unwrap();
    let (mut conn, mut other) = (test.conn("b"), test.conn("b"));
    assert_eq!(texts(&mut conn), Ok(vec![]));
    other.batch_execute("BEGIN").unwrap();
    assert_eq!(texts(&mut other), Ok(vec![]));
    node.lose_mount().unwrap();
    wait_until("node b to notice", || role(&test, "b") == RoleKind::Unknown);
    let error = texts(&mut conn).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
    let error = conn.on_local(texts).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
    let error = texts(&mut other).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::TransactionLost), "{error}");
    other.batch_execute("ROLLBACK").unwrap();
    let error = texts(&mut other).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
}

#[test]
fn a_mount_lost_without_a_known_primary_is_detected() {
    let test = test_cluster();
    let node = test.cluster.node("b");
    node.set_cached_reads(true).unwrap();
    node.lose_primary().unwrap();
    wait_until("no primary", || role(&test, "b") == RoleKind::Unknown);
    let mut conn = test.conn("b");
    for _ in 0..3 {
        assert_eq!(texts(&mut conn), Ok(vec![]), "without a primary reads work");
    }
    node.lose_mount().unwrap();
    let litefs = test.litefs("b");
    wait_until("node b to notice", || litefs.tracker().status().litefs == Presence::Lost);
    let error = texts(&mut conn).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
}

#[test]
fn a_read_during_the_loss_of_the_mount_is_typed() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    assert_eq!(texts(&mut conn), Ok(vec![]));
    test.cluster.node("b").lose_mount().unwrap();
    let error = texts(&mut conn).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
    match test.litefs("b").establish() {
        Err(ConnectionError::CouldntSetupConfiguration(error)) => {
            assert_eq!(Failure::of(&error), Some(Failure::MountLost), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_local_write_that_loses_its_mount_is_typed() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| builder.primary_timeout(SHORT));
    test.schema(SCHEMA);
    let (mut conn, mut other) = (test.conn("a"), test.conn("a"));
    other.batch_execute("BEGIN").unwrap();
    add(&mut other, "x").unwrap();
    test.cluster.node("a").lose_mount().unwrap();
    let error = other.batch_execute("COMMIT").unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::TransactionLost), "{error}");
    let error = add(&mut conn, "y").unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::NoPrimary), "{error}");
}

fn check_full(fault: DiskFault, failure: Failure, writes: LocalWrites) {
    let test = TestCluster::configured(&["a", "b"], |_, builder| builder.local_writes(writes));
    test.schema(SCHEMA);
    let node = test.cluster.node("a");
    let mut conns = [test.conn("a"), test.conn("b")];
    node.set_disk_fault(fault).unwrap();
    for (conn, name) in conns.iter_mut().zip(["a", "b"]) {
        let mut runs = 0;
        let once = add(conn, "x").unwrap_err();
        let transaction = conn
            .transaction_with_retry(20, |conn| {
                runs += 1;
                add(conn, "y")
            })
            .unwrap_err();
        let batch = conn.batch_execute("INSERT INTO notes VALUES (7, 'z')").unwrap_err();
        for error in [once, transaction, batch] {
            assert_eq!(Failure::of(&error), Some(failure), "{fault:?} from {name}: {error}");
            assert!(error.to_string().contains("node a"), "{error}");
        }
        assert_eq!(runs, 1, "{fault:?} from {name}: a retry does not help");
    }
    assert_eq!(role(&test, "a"), RoleKind::Primary);
    node.set_disk_fault(DiskFault::None).unwrap();
    for conn in &mut conns {
        add(conn, "room again").unwrap();
        conn.transaction(|conn| add(conn, "room again")).unwrap();
    }
    assert_eq!(texts(&mut conns[0]).unwrap(), ["room again"; 4]);
}

#[test]
fn a_full_disk_is_not_a_demotion() {
    check_full(DiskFault::Full, Failure::DiskFull, LocalWrites::Direct);
    check_full(DiskFault::Full, Failure::DiskFull, LocalWrites::Grouped);
}

#[test]
fn a_failing_disk_is_not_a_demotion() {
    check_full(DiskFault::Io, Failure::Io, LocalWrites::Direct);
    check_full(DiskFault::Io, Failure::Io, LocalWrites::Grouped);
}

#[test]
fn statements_without_writes_wait_for_no_replica() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.durability(Durability::Replicas(1)).forward_timeout(SHORT)
    });
    test.schema(SCHEMA);
    test.cluster.node("b").stall_replication().unwrap();
    let error = add(&mut test.conn("a"), "x").unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::NotReplicated), "a write waits: {error}");
    let mut conn = test.conn("b");
    assert_eq!(conn.on_primary(texts), Ok(vec!["x".to_owned()]));
    assert_eq!(conn.immediate_transaction(texts), Ok(vec!["x".to_owned()]));
    let none = diesel::update(notes::table.find(7)).set(notes::text.eq("y")).execute(&mut conn);
    assert_eq!(none, Ok(0));
    let none: Vec<i32> =
        diesel::delete(notes::table.find(7)).returning(notes::id).load(&mut conn).unwrap();
    assert!(none.is_empty());
    for sql in ["CREATE TABLE more (x)", "INSERT INTO notes VALUES (9, 'z')"] {
        let error = conn.batch_execute(sql).unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::NotReplicated), "{sql}: {error}");
        let error = conn
            .immediate_transaction(|conn| {
                conn.batch_execute(&sql.replace("more", "most").replace('9', "8"))
            })
            .unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::NotReplicated), "{sql}: {error}");
    }
}

#[test]
fn a_lock_held_by_another_connection_is_busy() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.on_connection(|conn| conn.batch_execute("PRAGMA busy_timeout = 0"))
    });
    test.schema(SCHEMA);
    let mut holder = test.plain("a");
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    for name in ["a", "b"] {
        let mut conn = test.conn(name);
        let errors = [
            add(&mut conn, "x").unwrap_err(),
            conn.batch_execute("INSERT INTO notes VALUES (1, 'x')").unwrap_err(),
            conn.immediate_transaction(|conn| add(conn, "x")).unwrap_err(),
            conn.execute_batch(&[&diesel::delete(notes::table)]).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(Failure::of(&error), Some(Failure::Busy), "{name}: {error}");
            assert!(error.to_string().starts_with("database is locked"), "{name}: {error}");
        }
    }
    holder.batch_execute("ROLLBACK").unwrap();
    assert_eq!(add(&mut test.conn("b"), "x"), Ok(1));
}

#[test]
fn a_function_missing_on_the_primary_is_named() {
    let test = TestCluster::configured(&["a", "b"], |name, builder| match name {
        "b" => builder
            .on_connection(|conn| shout_utils::register_impl(conn, |text: String| text + "!")),
        _ => builder,
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    let loud = notes::text.eq(shout("hey"));
    let error = diesel::insert_into(notes::table).values(loud).execute(&mut conn).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("no such function: shout"), "{said}");
    assert!(said.contains("the primary, node a,") && said.contains("on_connection"), "{said}");
    let script = "INSERT INTO notes VALUES (1, 'x'); INSERT INTO notes VALUES (2, shout('x'))";
    let said = conn.batch_execute(script).unwrap_err().to_string();
    assert!(said.contains("the primary, node a,"), "{said}");
}

#[test]
fn f15_a_primary_that_comes_back_writes_to_its_new_mount() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    add(&mut conn, "before").unwrap();
    let a = test.cluster.node("a");
    a.kill();
    wait_until("node a to notice", || role(&test, "a") != RoleKind::Primary);
    a.restart().unwrap();
    test.cluster.promote("a").unwrap();
    test.wait_for_roles();
    assert_eq!(add(&mut conn, "after"), Ok(1));
}
