//! Random programs of transactions have the same results on plain SQLite and on a replica.

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_tests::TestCluster;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

diesel::table! { rows (k) { k -> Integer, v -> Integer, } }

const SCHEMA: &str = "CREATE TABLE rows (k INTEGER PRIMARY KEY, v INTEGER NOT NULL UNIQUE)";

/// One step of a program.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    BeginImmediate,
    Commit,
    Rollback,
    Savepoint(u8),
    Release(u8),
    RollbackTo(u8),
    Insert(i32, i32),
    Returning(i32, i32),
    Add(i32),
    Delete(i32),
    Read,
    Script(i32, i32),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..3_u8;
    let small = || 0..6_i32;
    prop_oneof![
        3 => Just(Step::Begin),
        1 => Just(Step::BeginImmediate),
        3 => Just(Step::Commit),
        2 => Just(Step::Rollback),
        2 => name.clone().prop_map(Step::Savepoint),
        1 => name.clone().prop_map(Step::Release),
        1 => name.prop_map(Step::RollbackTo),
        4 => (small(), small()).prop_map(|(k, v)| Step::Insert(k, v)),
        2 => (small(), small()).prop_map(|(k, v)| Step::Returning(k, v)),
        2 => small().prop_map(Step::Add),
        1 => small().prop_map(Step::Delete),
        4 => Just(Step::Read),
        1 => (small(), small()).prop_map(|(k, v)| Step::Script(k, v)),
    ]
}

/// Runs one step and returns its result.
fn run<C>(conn: &mut C, step: &Step) -> String
where
    C: LoadConnection + Connection<Backend = Sqlite>,
{
    let insert =
        |k: i32, v: i32| diesel::insert_into(rows::table).values((rows::k.eq(k), rows::v.eq(v)));
    match step {
        Step::Begin => said(conn.batch_execute("BEGIN")),
        Step::BeginImmediate => said(conn.batch_execute("BEGIN IMMEDIATE")),
        Step::Commit => said(conn.batch_execute("COMMIT")),
        Step::Rollback => said(conn.batch_execute("ROLLBACK")),
        Step::Savepoint(name) => said(conn.batch_execute(&format!("SAVEPOINT s{name}"))),
        Step::Release(name) => said(conn.batch_execute(&format!("RELEASE s{name}"))),
        Step::RollbackTo(name) => said(conn.batch_execute(&format!("ROLLBACK TO s{name}"))),
        Step::Insert(k, v) => said(insert(*k, *v).execute(conn)),
        Step::Returning(k, v) => said(insert(*k, *v).returning(rows::v).get_result::<i32>(conn)),
        Step::Add(k) => {
            said(diesel::update(rows::table.find(k)).set(rows::v.eq(rows::v + 1)).execute(conn))
        }
        Step::Delete(k) => said(diesel::delete(rows::table.find(k)).execute(conn)),
        Step::Read => said(rows::table.order(rows::k).load::<(i32, i32)>(conn)),
        Step::Script(k, v) => said(conn.batch_execute(&format!(
            "UPDATE rows SET v = v + 100 WHERE k = {k}; INSERT INTO rows \
             VALUES ({k} + 10, {v} + 200)"
        ))),
    }
}

fn said<T: std::fmt::Debug>(result: QueryResult<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(Error::DatabaseError(kind, information)) => {
            format!("{kind:?}: {}", information.message())
        }
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn x3_random_programs_have_the_results_of_plain_sqlite() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    let dir = tempfile::tempdir().unwrap();
    let mut plain =
        SqliteConnection::establish(dir.path().join("plain.db").to_str().unwrap()).unwrap();
    plain.batch_execute(SCHEMA).unwrap();
    plain.batch_execute("PRAGMA journal_mode = WAL").unwrap();
    let plain = std::cell::RefCell::new(plain);
    let mut runner =
        TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let programs = prop::collection::vec(step(), 1..25);
    runner
        .run(&programs, |program| {
            let mut replica = test.conn("b");
            let mut plain = plain.borrow_mut();
            for step in &program {
                let expected = run(&mut *plain, step);
                prop_assert_eq!(run(&mut replica, step), expected, "{:?}", step);
            }
            // An open transaction ends the same way on both sides, and the primary has the same
            // data.
            let _ = plain.batch_execute("ROLLBACK");
            drop(replica);
            let data = |conn: &mut SqliteConnection| {
                rows::table.order(rows::k).load::<(i32, i32)>(conn).unwrap()
            };
            let on_primary = {
                // The session of the dropped connection may still be rolling back.
                let mut conn = test.plain("a");
                conn.batch_execute("BEGIN IMMEDIATE; COMMIT").unwrap();
                data(&mut conn)
            };
            prop_assert_eq!(on_primary, data(&mut plain));
            plain.batch_execute("DELETE FROM rows").unwrap();
            test.conn("b").batch_execute("DELETE FROM rows").unwrap();
            Ok(())
        })
        .unwrap();
}
