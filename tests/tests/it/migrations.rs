//! Migrations from any node: scenario X11 of the acceptance list.

use std::sync::Barrier;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationConnection;
use diesel::prelude::*;
use diesel::r2d2::Pool;
use diesel::sqlite::Sqlite;
use diesel_migrations::{
    EmbeddedMigrations, FileBasedMigrations, MigrationHarness, embed_migrations,
};
use litefs_diesel::{Consistency, Failure};
use litefs_tests::{TestCluster, wait_until};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

diesel::table! { notes { id -> Integer, text -> Text, words -> Integer, } }

/// The state after each migration ran once.
const ONCE: [(i32, i32); 2] = [(1, 2), (2, 2)];

fn rows(conn: &mut impl diesel::connection::LoadConnection<Backend = Sqlite>) -> Vec<(i32, i32)> {
    notes::table.select((notes::id, notes::words)).order(notes::id).load(conn).unwrap()
}

#[test]
fn x11_migrations_on_a_replica_are_visible_on_return() {
    let test = TestCluster::start(&["a", "b"]);
    // Replication is slow enough that a migration which did not wait would return too early.
    test.cluster.node("b").set_replication_delay(Duration::from_millis(100)).unwrap();
    let mut conn = test.conn("b");
    assert_eq!(conn.run_pending_migrations(MIGRATIONS).unwrap().len(), 3);
    // A plain SQLite connection, which does not wait.
    assert_eq!(rows(&mut test.plain("b")), ONCE);
    assert_eq!(rows(&mut test.plain("a")), ONCE);
    assert!(test.conn("b").run_pending_migrations(MIGRATIONS).unwrap().is_empty());
}

#[test]
fn x11_migrations_from_files() {
    let test = TestCluster::start(&["a", "b"]);
    let files = || {
        FileBasedMigrations::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap()
    };
    let mut conn = test.conn("b");
    assert_eq!(conn.run_pending_migrations(files()).unwrap().len(), 3);
    assert_eq!(rows(&mut test.plain("b")), ONCE);
    conn.revert_last_migration(files()).unwrap();
    conn.run_pending_migrations(files()).unwrap();
    assert_eq!(rows(&mut test.plain("b")), ONCE);
}

#[test]
fn x11_six_nodes_apply_each_migration_once() {
    const NODES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let test = TestCluster::start(&NODES);
    test.conn("a").setup().unwrap();
    test.sync();
    let start = Barrier::new(NODES.len());
    let applied: usize = std::thread::scope(|scope| {
        let run = |name: &'static str| {
            let (test, start) = (&test, &start);
            move || {
                let mut conn = test.conn(name);
                // All nodes have the same list of pending migrations.
                assert_eq!(conn.pending_migrations(MIGRATIONS).unwrap().len(), 3);
                start.wait();
                let applied = conn.run_pending_migrations(MIGRATIONS).unwrap().len();
                assert_eq!(rows(&mut test.plain(name)), ONCE, "{name}");
                applied
            }
        };
        let runners: Vec<_> = NODES.iter().map(|name| scope.spawn(run(name))).collect();
        runners.into_iter().map(|runner| runner.join().unwrap()).sum()
    });
    assert!(applied >= 3);
    assert_eq!(rows(&mut test.plain("a")), ONCE);
}

/// The tightest race: this node reads its list, another one migrates, then this one continues.
#[test]
fn x11_a_migration_of_another_node_is_not_repeated() {
    for node in ["a", "b"] {
        let test = TestCluster::start(&["a", "b", "c"]);
        let mut pool = Pool::builder()
            .max_size(1)
            .build(test.litefs(node).connection_manager())
            .unwrap()
            .get()
            .unwrap();
        let pending = pool.pending_migrations(MIGRATIONS).unwrap();
        test.conn("c").run_pending_migrations(MIGRATIONS).unwrap();
        pool.run_migrations(&pending).unwrap();
        assert_eq!(rows(&mut test.plain("a")), ONCE, "{node}");
        let reverted = pool.applied_migrations().unwrap();
        assert_eq!(reverted.len(), 3);
        // The way back: both nodes revert the last migration.
        test.conn("c").revert_last_migration(MIGRATIONS).unwrap();
        let last = MigrationSourceExt::last(&MIGRATIONS);
        pool.revert_migration(&*last).unwrap();
        test.sync();
        assert_eq!(pool.applied_migrations().unwrap().len(), 2, "{node}");
    }
}

/// The migration with the highest version.
trait MigrationSourceExt {
    fn last(&self) -> Box<dyn diesel::migration::Migration<Sqlite>>;
}

impl MigrationSourceExt for EmbeddedMigrations {
    fn last(&self) -> Box<dyn diesel::migration::Migration<Sqlite>> {
        use diesel::migration::MigrationSource;
        let all = self.migrations().unwrap().into_iter();
        let all = all.map(|migration: Box<dyn diesel::migration::Migration<Sqlite>>| {
            (migration.name().version().to_string(), migration)
        });
        all.max_by(|(one, _), (other, _)| one.cmp(other)).unwrap().1
    }
}

#[test]
fn x11_a_migration_that_is_late_times_out_and_can_be_rerun() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.forward_timeout(Duration::from_millis(500))
    });
    let mut conn = test.conn("b");
    conn.setup().unwrap();
    test.sync();
    test.cluster.node("b").stall_replication().unwrap();
    let error = conn.run_pending_migrations(MIGRATIONS).unwrap_err();
    let error = error.downcast::<diesel::result::Error>().unwrap();
    assert_eq!(Failure::of(&error), Some(Failure::SchemaSkew), "{error}");
    test.cluster.node("b").resume_replication().unwrap();
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    assert_eq!(rows(&mut test.plain("b")), ONCE);
}

#[test]
fn a_node_with_nothing_to_migrate_needs_no_primary() {
    let test = TestCluster::start(&["a", "b"]);
    test.conn("a").run_pending_migrations(MIGRATIONS).unwrap();
    test.sync();
    assert!(test.conn("b").run_pending_migrations(MIGRATIONS).unwrap().is_empty());
    assert_eq!(test.litefs("b").round_trips(), 0);
}

#[test]
fn a_failing_migration_is_rolled_back_with_sqlites_error() {
    let test = TestCluster::start(&["a", "b"]);
    let mut conn = test.conn("b");
    test.schema("CREATE TABLE notes (id INTEGER PRIMARY KEY)");
    let error = conn.run_pending_migrations(MIGRATIONS).unwrap_err();
    assert!(error.to_string().contains("table notes already exists"), "{error}");
    assert!(conn.applied_migrations().unwrap().is_empty());
    // The connection is still usable.
    conn.batch_execute("DROP TABLE notes").unwrap();
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    assert_eq!(rows(&mut test.plain("a")), ONCE);
}

/// A script that was held back by mistake runs as soon as another statement does.
#[test]
fn a_script_transaction_after_migrations_runs_normally() {
    for node in ["a", "b"] {
        let test = TestCluster::start(&["a", "b"]);
        let mut conn = test.conn(node);
        conn.run_pending_migrations(MIGRATIONS).unwrap();
        conn.transaction(|conn| {
            conn.batch_execute("INSERT INTO notes (text) VALUES ('three')")?;
            assert_eq!(rows(conn).len(), 3);
            QueryResult::Ok(())
        })
        .unwrap();
        conn.applied_migrations().unwrap();
        conn.transaction(|conn| conn.batch_execute("INSERT INTO notes (text) VALUES ('four')"))
            .unwrap();
        conn.applied_migrations().unwrap();
        let failed = conn.transaction(|conn| {
            conn.batch_execute("INSERT INTO notes (text) VALUES ('five')")?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        assert!(failed.is_err());
        assert_eq!(rows(&mut test.plain("a")).len(), 4, "{node}");
    }
}

#[test]
fn a_table_not_replicated_yet_is_schema_skew() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema("CREATE TABLE other (id INTEGER PRIMARY KEY)");
    test.cluster.node("b").stall_replication().unwrap();
    test.conn("a").run_pending_migrations(MIGRATIONS).unwrap();
    let mut conn = test.conn("b");
    conn.set_consistency(Consistency::Eventual);
    let count =
        |conn: &mut litefs_diesel::LiteFsConnection| notes::table.count().get_result::<i64>(conn);
    for _ in 0..2 {
        let error = count(&mut conn).unwrap_err();
        assert_eq!(Failure::of(&error), Some(Failure::SchemaSkew), "{error}");
        assert!(error.to_string().contains("no such table: notes"), "{error}");
    }
    test.cluster.node("b").resume_replication().unwrap();
    test.sync();
    wait_until("the schema", || count(&mut conn).is_ok());
    let error = diesel::sql_query("SELECT * FROM nowhere").execute(&mut conn).unwrap_err();
    assert_eq!(error.to_string(), "no such table: nowhere");
}

#[test]
fn only_diesels_own_statements_count_as_a_migration() {
    for node in ["a", "b"] {
        let test = TestCluster::start(&["a", "b"]);
        let mut conn = test.conn(node);
        conn.run_pending_migrations(MIGRATIONS).unwrap();
        // Migrations that are squashed by hand.
        let removed = conn.transaction(|conn| {
            conn.batch_execute("CREATE TABLE squashed (x)")?;
            diesel::sql_query("DELETE FROM __diesel_schema_migrations WHERE version < ?")
                .bind::<diesel::sql_types::Text, _>("20269999")
                .execute(conn)
        });
        assert_eq!(removed, Ok(3), "{node}");
        test.plain("a").batch_execute("SELECT * FROM squashed").unwrap();
    }
}

#[test]
fn after_migrations_errors_come_from_their_own_statement() {
    for node in ["a", "b"] {
        let test = TestCluster::start(&["a", "b"]);
        let mut conn = test.conn(node);
        conn.run_pending_migrations(MIGRATIONS).unwrap();
        conn.transaction(|conn| {
            conn.batch_execute("INSERT INTO notes (id, text) VALUES (1, 'taken')").unwrap_err();
            conn.batch_execute("INSERT INTO notes (text) VALUES ('fallback')")
        })
        .unwrap();
        assert_eq!(rows(&mut test.plain("a")).len(), 3, "{node}");
    }
}

#[test]
fn migrations_without_a_transaction_are_visible_on_return() {
    use diesel::migration::MigrationSource;
    let dir = tempfile::tempdir().unwrap();
    for (name, up, transaction) in [
        ("1_first", "CREATE TABLE first (x)", false),
        ("2_second", "CREATE TABLE second (x); INSERT INTO second VALUES (1)", true),
    ] {
        let dir = dir.path().join("migrations").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("up.sql"), up).unwrap();
        std::fs::write(dir.join("down.sql"), "SELECT 1").unwrap();
        std::fs::write(dir.join("metadata.toml"), format!("run_in_transaction = {transaction}"))
            .unwrap();
    }
    let files = || FileBasedMigrations::from_path(dir.path().join("migrations")).unwrap();
    let test = TestCluster::start(&["a", "b", "c"]);
    test.cluster.node("b").set_replication_delay(Duration::from_millis(100)).unwrap();
    let mut conn = test.conn("b");
    let mut pending = conn.pending_migrations(files()).unwrap();
    conn.run_migration(&*pending.remove(0)).unwrap();
    test.plain("b").batch_execute("SELECT * FROM first").unwrap();
    // Another node does the rest, at any time.
    diesel::sql_query("SELECT 1").execute(&mut conn).unwrap();
    let others: Vec<Box<dyn diesel::migration::Migration<Sqlite>>> = files().migrations().unwrap();
    let second =
        others.iter().find(|migration| migration.name().to_string().contains("second")).unwrap();
    test.conn("c").run_migration(&**second).unwrap();
    conn.run_migration(&*pending.remove(0)).unwrap();
    let count: i64 = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM second")
        .get_result(&mut test.plain("b"))
        .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn the_first_migrations_of_a_node_that_never_waits() {
    let test = TestCluster::start(&["a", "b"]);
    test.cluster.node("b").set_replication_delay(Duration::from_millis(100)).unwrap();
    let mut conn = test.conn("b");
    conn.set_consistency(Consistency::Eventual);
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    assert_eq!(rows(&mut test.plain("b")), ONCE);
}

#[test]
fn a_missing_function_is_not_schema_skew() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema("CREATE TABLE other (id INTEGER PRIMARY KEY)");
    test.cluster.node("b").stall_replication().unwrap();
    test.conn("a").batch_execute("INSERT INTO other VALUES (1)").unwrap();
    let mut conn = test.conn("b");
    conn.set_consistency(Consistency::Eventual);
    for (sql, local) in [("SELECT nothing(1)", false), ("SELECT * FROM nowhere", true)] {
        let run = |conn: &mut litefs_diesel::LiteFsConnection| diesel::sql_query(sql).execute(conn);
        let error = if local { conn.on_local(run) } else { run(&mut conn) }.unwrap_err();
        assert_eq!(Failure::of(&error), None, "{error}");
    }
    assert_eq!(test.litefs("b").round_trips(), 0);
}
