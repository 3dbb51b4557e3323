//! Database URLs: every spelling that Diesel accepts finds the handle, and no parameter is lost.

use std::path::Path;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{ConnectionError, DatabaseErrorKind, Error};
use litefs_core::Role;
use litefs_diesel::{LiteFs, LiteFsConnection, StartError};
use litefs_tests::{DATABASE, TestCluster};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn path(test: &TestCluster, node: &str) -> String {
    test.cluster.node(node).database_path(DATABASE).to_str().unwrap().to_owned()
}

fn write(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

fn count(conn: &mut LiteFsConnection) -> QueryResult<i64> {
    notes::table.count().get_result(conn)
}

/// The relative path from the working directory to an absolute path.
fn relative(path: &str) -> String {
    let here = std::env::current_dir().unwrap();
    "../".repeat(here.components().count() - 1) + path.trim_start_matches('/')
}

#[test]
fn every_spelling_of_the_url_finds_the_handle() {
    let test = test_cluster();
    let (file, links) = (path(&test, "b"), tempfile::tempdir().unwrap());
    let directory = Path::new(&file).parent().unwrap();
    let link = |name: &str, to: &Path| {
        let link = links.path().join(name);
        std::os::unix::fs::symlink(to, &link).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let to_file = link("other-name.db", Path::new(&file));
    let to_link = link("link to a link", Path::new("other-name.db"));
    let to_directory = link("directory", directory);
    let node = directory.file_name().unwrap().to_str().unwrap();
    let escaped = file.replace("app.db", "%61pp%2edb");
    let spellings = [
        file.clone(),
        format!("sqlite://{file}"),
        format!("sqlite://{file}?mode=rwc&cache=private#top"),
        format!("sqlite://{escaped}?mode=rw"),
        format!("file:{escaped}"),
        format!("file://{file}?psow=1"),
        format!("file://localhost{file}"),
        relative(&file),
        format!("file:{}", relative(&file)),
        format!("sqlite://{}", relative(&file)),
        format!("{}/../{node}/./{DATABASE}", directory.display()),
        to_file.clone(),
        format!("sqlite://{}?mode=rw", to_link.replace(' ', "%20")),
        format!("{to_directory}/{DATABASE}"),
        format!("file:{to_directory}/../{node}/{DATABASE}"),
    ];
    for (at, url) in spellings.iter().enumerate() {
        let mut conn =
            LiteFsConnection::establish(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        write(&mut conn, url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(
            test.litefs("b").round_trips() as usize,
            at + 1,
            "{url} was written through the handle"
        );
        assert_eq!(count(&mut conn).unwrap() as usize, at + 1, "{url}");
    }
    let again = LiteFs::builder(&to_file).start();
    assert!(matches!(again, Err(StartError::AlreadyStarted(_))), "{again:?}");
}

#[test]
fn a_handle_started_by_any_spelling_is_on_litefs() {
    let mut test = test_cluster();
    test.stop("b");
    let (file, links) = (path(&test, "b"), tempfile::tempdir().unwrap());
    let link = links.path().join("data.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let vfs = litefs_testkit::VFS_NAME;
    let http_url = test.cluster.node("b").http_url();
    for url in [
        format!("sqlite://{file}?vfs={vfs}"),
        format!("sqlite://{}?vfs={vfs}", file.replace("app.db", "%61pp.db")),
        format!("file:{}?vfs={vfs}", link.display()),
        format!("file:{}?vfs={vfs}", relative(&file)),
    ] {
        let litefs = LiteFs::builder(&url)
            .listen("127.0.0.1:0".parse().unwrap())
            .tracker(|tracker| tracker.http_url(&http_url).node("b"))
            .start()
            .unwrap();
        litefs_tests::wait_until("the role", || matches!(litefs.role(), Role::Replica { .. }));
        assert_eq!(litefs.tracker().config().database_name(), DATABASE, "{url}");
        write(&mut litefs.establish().unwrap(), "x")
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(LiteFsConnection::establish(&file).is_ok(), "{url} is found by its path");
    }
}

/// The error of a write on a connection that was opened with `mode=ro`.
fn is_read_only<T>(result: QueryResult<T>) -> bool {
    use DatabaseErrorKind::{ReadOnlyTransaction, Unknown};
    matches!(
        result,
        Err(Error::DatabaseError(Unknown | ReadOnlyTransaction, why))
            if why.message() == "attempt to write a readonly database"
    )
}

#[test]
fn a_connection_with_mode_ro_reads_and_never_writes() {
    let test = test_cluster();
    write(&mut test.conn("a"), "one").unwrap();
    test.sync();
    for node in ["a", "b"] {
        let mut conn =
            LiteFsConnection::establish(&format!("sqlite://{}?mode=ro", path(&test, node)))
                .unwrap();
        assert_eq!(count(&mut conn), Ok(1));
        let trips = test.litefs(node).round_trips();
        assert!(is_read_only(write(&mut conn, "x")), "on {node}");
        let returned: QueryResult<i32> = diesel::insert_into(notes::table)
            .values(notes::text.eq("x"))
            .returning(notes::id)
            .get_result(&mut conn);
        assert!(is_read_only(returned), "on {node}");
        assert!(is_read_only(conn.batch_execute("DELETE FROM notes")), "on {node}");
        assert!(is_read_only(conn.batch_execute("BEGIN; DELETE FROM notes; COMMIT")), "on {node}");
        let delete = diesel::delete(notes::table);
        assert!(is_read_only(conn.execute_batch(&[&delete])), "on {node}");
        assert!(is_read_only(conn.on_primary(|conn| write(conn, "x"))), "on {node}");
        assert!(is_read_only(conn.transaction(|conn| write(conn, "x"))), "on {node}");
        assert!(is_read_only(conn.transaction(|conn| {
            assert_eq!(count(conn), Ok(1));
            write(conn, "x")
        })));
        // SQLite makes it a read transaction.
        assert_eq!(conn.immediate_transaction(count), Ok(1));
        assert!(is_read_only(conn.immediate_transaction(|conn| write(conn, "x"))), "on {node}");
        conn.batch_execute("CREATE TEMPORARY TABLE mine (x); INSERT INTO mine VALUES (1)").unwrap();
        assert_eq!(test.litefs(node).round_trips(), trips, "nothing was sent");
        assert_eq!(count(&mut conn), Ok(1));
    }
    // A writable connection of the same handle can.
    write(&mut LiteFsConnection::establish(&path(&test, "b")).unwrap(), "two").unwrap();
}

#[test]
fn a_read_only_connection_cannot_use_the_group_writer() {
    let test = TestCluster::configured(&["a"], |_, builder| {
        builder.local_writes(litefs_diesel::LocalWrites::Grouped)
    });
    test.schema(SCHEMA);
    let mut conn =
        LiteFsConnection::establish(&format!("file:{}?mode=ro", path(&test, "a"))).unwrap();
    assert!(is_read_only(write(&mut conn, "x")));
    assert!(is_read_only(conn.execute_batch(&[&diesel::delete(notes::table)])));
    write(&mut test.conn("a"), "x").unwrap();
}

#[test]
fn a_handle_with_mode_ro_serves_and_its_connections_only_read() {
    let mut test = test_cluster();
    test.stop("a");
    let url = format!("{}&mode=ro", test.cluster.node("a").database_url(DATABASE));
    let http_url = test.cluster.node("a").http_url();
    let handle = LiteFs::builder(&url)
        .listen("127.0.0.1:0".parse().unwrap())
        .tracker(|tracker| tracker.http_url(&http_url).node("a"))
        .start()
        .unwrap();
    litefs_tests::wait_until("the role", || handle.role() == Role::Primary);
    write(&mut test.conn("b"), "one").unwrap();
    let mut conn = handle.establish().unwrap();
    assert_eq!(count(&mut conn), Ok(1));
    assert!(is_read_only(write(&mut conn, "two")));
}

#[test]
fn parameters_that_litefs_cannot_support_are_refused() {
    let test = test_cluster();
    let file = path(&test, "b");
    for (parameter, value) in [
        ("immutable", "1"),
        ("nolock", "yes"),
        ("cache", "shared"),
        ("vfs", "unix-dotfile"),
        ("vfs", "another"),
    ] {
        let url = format!("sqlite://{file}?{parameter}={value}");
        match LiteFsConnection::establish(&url) {
            Err(ConnectionError::InvalidConnectionUrl(message)) => {
                assert!(message.contains(&format!("{file}?{parameter}={value}")), "{message}");
            }
            other => panic!("{url}: {:?}", other.map(drop)),
        }
    }
    for fine in ["immutable=0", "nolock=off", "cache=private", "psow=0", "unknown=x", "mode=rw"] {
        let mut conn = LiteFsConnection::establish(&format!("file:{file}?{fine}")).unwrap();
        write(&mut conn, fine).unwrap();
    }
    // SQLite refuses it, and the library does not change that.
    assert!(LiteFsConnection::establish(&format!("file:{file}?mode=readonly")).is_err());
}

#[test]
fn a_handle_refuses_parameters_that_litefs_cannot_support() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(DATABASE);
    for parameter in ["immutable=1", "nolock=1", "cache=shared", "vfs=unix-none"] {
        let error = LiteFs::start(&format!("file:{}?{parameter}", file.display())).unwrap_err();
        assert!(matches!(error, StartError::Config(_)), "{error:?}");
        assert!(error.to_string().contains(parameter.split('=').next().unwrap()), "{error}");
    }
    assert!(!file.exists());
}

#[test]
fn databases_in_memory_and_off_litefs_are_plain_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file:memory:of ours.db");
    for url in [
        "",
        "sqlite://",
        ":memory:",
        "file::memory:",
        "sqlite://:memory:",
        "file:%3amemory%3a?cache=shared",
        "file:shared-by-name?mode=memory&cache=shared",
        "file:/shared-by-name?vfs=memdb",
        file.to_str().unwrap(),
    ] {
        let mut conn =
            LiteFsConnection::establish(url).unwrap_or_else(|error| panic!("{url:?}: {error}"));
        conn.batch_execute(SCHEMA).unwrap();
        assert_eq!(write(&mut conn, "x"), Ok(1), "{url:?}");
    }
    assert!(file.exists(), "a path with that in its name is a file");
    let url = format!("file:{}?immutable=1", file.display());
    assert_eq!(count(&mut LiteFsConnection::establish(&url).unwrap()), Ok(1));
}
