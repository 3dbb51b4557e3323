//! Starting, stopping and monitoring a handle.

use std::sync::{Arc, Mutex};

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::r2d2::Pool;
use litefs_core::Role;
use litefs_diesel::{Failure, LiteFs, LiteFsConnection, StartError};
use litefs_rpc::server::ServeError;
use litefs_tests::{DATABASE, TestCluster, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn write(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

#[test]
fn d6_without_litefs_a_handle_that_requires_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let error = LiteFs::builder(path.to_str().unwrap())
        .tracker(|t| t.require_litefs(true))
        .start()
        .unwrap_err();
    assert!(matches!(error, StartError::Tracker(_)), "{error:?}");
    assert!(error.to_string().contains("LiteFS is required but not found"), "{error}");
}

#[test]
fn d16_two_databases_of_a_process_are_independent() {
    let (one, two) = (TestCluster::start(&["a", "b"]), TestCluster::start(&["a", "b"]));
    one.schema(SCHEMA);
    two.schema(SCHEMA);
    two.cluster.promote("b").unwrap();
    two.wait_for_roles();
    assert_eq!(one.litefs("a").role(), Role::Primary);
    assert!(matches!(two.litefs("a").role(), Role::Replica { .. }));
    write(&mut one.conn("b"), "one").unwrap();
    let none: i64 = notes::table.count().get_result(&mut two.conn("a")).unwrap();
    assert_eq!(none, 0);
}

#[test]
fn d17_a_second_handle_fails_until_the_first_is_dropped() {
    let mut test = TestCluster::start(&["a", "b"]);
    assert!(matches!(test.builder("b").start(), Err(StartError::AlreadyStarted(_))));
    test.stop("b");
    let again = test.builder("b").start().unwrap();
    wait_until("the role", || matches!(again.role(), Role::Replica { .. }));
}

#[test]
fn s1_a_replica_with_another_secret_is_refused() {
    let test = TestCluster::configured(&["a", "b"], |name, builder| {
        builder
            .secret(if name == "a" { "the secret of node a" } else { "the secret of node b" })
            .listen("127.0.0.1:0".parse().unwrap())
    });
    test.schema(SCHEMA);
    let started = std::time::Instant::now();
    let error = write(&mut test.conn("b"), "x").unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Incompatible), "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "the error must not wait");
    assert!(!error.to_string().contains("the secret of"), "{error}");
    let count: i64 = notes::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn s1_nodes_with_the_same_secret_work_together() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.secret("one secret for all").listen("127.0.0.1:0".parse().unwrap())
    });
    test.schema(SCHEMA);
    write(&mut test.conn("b"), "x").unwrap();
}

#[test]
fn s2_a_public_address_needs_authentication() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.stop("b");
    let error = test.builder("b").listen("0.0.0.0:0".parse().unwrap()).start().unwrap_err();
    assert!(matches!(error, StartError::Serve(ServeError::Insecure(_))), "{error:?}");
    let open = test.builder("b").listen("0.0.0.0:0".parse().unwrap()).allow_insecure(true).start();
    assert!(open.is_ok(), "{open:?}");
}

#[test]
fn a_port_in_use_is_an_error_with_advice() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    let taken = test.litefs("a").rpc_address().unwrap();
    test.stop("b");
    let error = test.builder("b").listen(taken).start().unwrap_err();
    assert!(error.to_string().contains("serve(false)"), "{error}");
    let worker = test.builder("b").listen(taken).serve(false).start().unwrap();
    assert_eq!(worker.rpc_address(), None);
    wait_until("the primary's address", || match worker.role() {
        Role::Replica { primary } => worker.tracker().rpc_address(&primary) == taken.to_string(),
        _ => false,
    });
    write(&mut worker.establish().unwrap(), "x").unwrap();
}

#[test]
fn establish_on_litefs_without_a_handle_fails() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test.stop("b");
    // Nothing listens at LiteFS's default HTTP address, so the role comes from `.primary` alone.
    let url = test.cluster.node("b").database_url(DATABASE);
    match LiteFsConnection::establish(&url) {
        Ok(mut conn) => {
            write(&mut conn, "x").unwrap();
            let count: i64 = notes::table.count().get_result(&mut test.plain("a")).unwrap();
            assert_eq!(count, 1, "it was forwarded");
        }
        // Another process of this machine may listen on LiteFS's default port.
        Err(error) => assert!(error.to_string().contains("20203"), "{error}"),
    }
}

#[test]
fn diesels_and_our_pool_managers_work() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    let url = test.cluster.node("b").database_url(DATABASE);
    let theirs = Pool::builder()
        .max_size(2)
        .build(diesel::r2d2::ConnectionManager::<LiteFsConnection>::new(url))
        .unwrap();
    let ours = Pool::builder().max_size(2).build(test.litefs("b").connection_manager()).unwrap();
    diesel::insert_into(notes::table)
        .values(notes::text.eq("x"))
        .execute(&mut theirs.get().unwrap())
        .unwrap();
    diesel::insert_into(notes::table)
        .values(notes::text.eq("y"))
        .execute(&mut ours.get().unwrap())
        .unwrap();
    let count: i64 = notes::table.count().get_result(&mut theirs.get().unwrap()).unwrap();
    assert_eq!(count, 2);
    // A connection that is returned with an open transaction is not handed out again.
    let mut broken = ours.get().unwrap();
    broken.batch_execute("SELECT 1").unwrap();
    use diesel::connection::TransactionManager;
    diesel::connection::AnsiTransactionManager::begin_transaction(&mut *broken).unwrap();
    drop(broken);
    for _ in 0..4 {
        let mut conn = ours.get().unwrap();
        conn.transaction(|conn| write(conn, "z")).unwrap();
    }
}

#[test]
fn instrumentation_receives_only_the_users_queries() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        conn.set_instrumentation(move |event: diesel::connection::InstrumentationEvent<'_>| {
            let text = format!("{event:?}");
            if text.starts_with("StartQuery") || text.starts_with("FinishQuery") {
                sink.lock().unwrap().push(text.split([' ', '{']).next().unwrap().to_owned());
            }
        });
        write(&mut conn, "x").unwrap();
        let _: Vec<i32> = notes::table.select(notes::id).load(&mut conn).unwrap();
        conn.transaction(|conn| {
            let _: i64 = notes::table.count().get_result(conn)?;
            write(conn, "y")
        })
        .unwrap();
        let events = std::mem::take(&mut *events.lock().unwrap());
        let expected = ["StartQuery", "FinishQuery"].repeat(6);
        assert_eq!(events, expected, "on {node}");
    }
}

#[test]
fn a_replica_waits_for_the_database_to_be_replicated() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.stop("b");
    let node = test.cluster.node("b");
    let (other, http_url) =
        (litefs_testkit::database_url(&node.database_path("other.db")), node.http_url());
    let handle = LiteFs::builder(&other)
        .listen("127.0.0.1:0".parse().unwrap())
        .primary_timeout(std::time::Duration::from_millis(200))
        .tracker(|tracker| tracker.http_url(&http_url).node("b"))
        .start()
        .unwrap();
    let error = handle.establish().unwrap_err();
    assert!(error.to_string().contains("does not exist on this replica"), "{error}");
    assert!(!node.database_path("other.db").exists());
    // The primary creates it, and the replica receives it.
    let url = test.cluster.node("a").database_url("other.db");
    let mut plain = diesel::SqliteConnection::establish(&url).unwrap();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| {
            wait_until("the database", || handle.establish().is_ok());
        });
        plain.batch_execute(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).unwrap();
        opened.join().unwrap();
    });
    let mut conn = handle.establish().unwrap();
    wait_until("the schema", || notes::table.count().get_result::<i64>(&mut conn) == Ok(0));
}

#[test]
fn a_transaction_statement_as_a_query_works() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    diesel::sql_query("BEGIN").execute(&mut conn).unwrap();
    write(&mut conn, "x").unwrap();
    let rows: Vec<i32> =
        diesel::dsl::sql::<diesel::sql_types::Integer>("ROLLBACK").load(&mut conn).unwrap();
    assert!(rows.is_empty());
    let count: i64 = notes::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn checkpoints_run_on_a_thread_by_default() {
    let pages = |conn: &mut LiteFsConnection| {
        let pages = diesel::dsl::sql::<diesel::sql_types::BigInt>("PRAGMA wal_autocheckpoint");
        pages.get_result::<i64>(conn).unwrap()
    };
    let test = TestCluster::start(&["a"]);
    assert_eq!(pages(&mut test.conn("a")), 4_000);
    let test = TestCluster::configured(&["a"], |_, builder| {
        builder.on_connection(|conn| conn.batch_execute("PRAGMA wal_autocheckpoint = 77"))
    });
    assert_eq!(pages(&mut test.conn("a")), 77);
}

/// Set in the environment of the child process of a test.
const CHILD: &str = "TEST_IN_A_PROCESS_OF_ITS_OWN";

/// Runs a test of this program in a child process with one more variable, which is not UTF-8.
/// Returns its output.
fn run_with_garbled(test: &str, variable: &str) -> (bool, String) {
    use std::os::unix::ffi::OsStrExt;
    let garbled = std::ffi::OsStr::from_bytes(b"garbled-\xff");
    let program = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(CHILD, "1").env(variable, garbled);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_variable_that_is_not_utf8_does_not_make_start_panic() {
    const NAME: &str = "handles::a_variable_that_is_not_utf8_does_not_make_start_panic";
    if std::env::var_os(CHILD).is_some() {
        let dir = tempfile::tempdir().unwrap();
        let started = LiteFs::start(dir.path().join(DATABASE).to_str().unwrap());
        println!("started: {:?}", started.map(drop).map_err(|error| error.to_string()));
        return;
    }
    for (variable, expected) in [
        ("SOME_OTHER", "started: Ok(())"),
        ("LITEFS_OTHER", "started: Ok(())"),
        ("LITEFS_NODE", "(environment variable LITEFS_NODE)"),
        ("LITEFS_SERVE", "(environment variable LITEFS_SERVE)"),
        ("LITEFS_RPC_ADVERTISE", "(environment variable LITEFS_RPC_ADVERTISE)"),
        ("LITEFS_PRIMARY_TIMEOUT_MS", "(environment variable LITEFS_PRIMARY_TIMEOUT_MS)"),
        ("LITEFS_RPC_SECRET", "(environment variable LITEFS_RPC_SECRET)"),
    ] {
        let (success, said) = run_with_garbled(NAME, variable);
        assert!(success && said.contains(expected), "{variable}: {said}");
        assert!(variable != "LITEFS_RPC_SECRET" || !said.contains("garbled"), "{said}");
    }
}
