//! The remaining features of `SqliteConnection`, where it matters that there are two machines.

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use diesel::sqlite::{SqliteAggregateFunction, SqliteConnection};
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::TestCluster;

diesel::table! { notes { id -> Integer, text -> Text, stars -> Integer, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, \
                      stars INTEGER NOT NULL DEFAULT 0)";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn texts(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<(String, i32)> {
    notes::table.select((notes::text, notes::stars)).order(notes::id).load(conn).unwrap()
}

fn note(text: &str) -> impl diesel::query_builder::QueryFragment<diesel::sqlite::Sqlite> + '_ {
    diesel::insert_into(notes::table).values(notes::text.eq(text))
}

fn denied<T: std::fmt::Debug>(result: QueryResult<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    error.to_string()
}

// The derive requires the connections themselves.
#[allow(clippy::large_enum_variant)]
#[derive(diesel::MultiConnection)]
enum AnyConnection {
    LiteFs(LiteFsConnection),
    Plain(SqliteConnection),
}

#[test]
fn a_multi_connection_may_contain_ours() {
    let test = test_cluster();
    for mut conn in [AnyConnection::LiteFs(test.conn("b")), AnyConnection::Plain(test.plain("a"))] {
        conn.transaction(|conn| {
            diesel::insert_into(notes::table).values(notes::text.eq("x")).execute(conn)?;
            assert_eq!(notes::table.select(notes::text).load::<String>(conn)?, ["x"]);
            diesel::delete(notes::table).execute(conn)
        })
        .unwrap();
    }
    // The INSERT goes along with the query that looks at its row; DELETE and COMMIT follow.
    assert_eq!(test.litefs("b").round_trips(), 3);
}

#[diesel::declare_sql_function]
extern "SQL" {
    #[aggregate]
    fn longest_gap(number: Integer) -> Integer;
}

#[derive(Default)]
struct LongestGap {
    last: Option<i32>,
    gap: i32,
}

impl SqliteAggregateFunction<i32> for LongestGap {
    type Output = i32;

    fn step(&mut self, number: i32) {
        self.gap = self.gap.max(self.last.map_or(0, |last| number - last));
        self.last = Some(number);
    }

    fn finalize(aggregator: Option<Self>) -> i32 {
        aggregator.map_or(0, |aggregator| aggregator.gap)
    }
}

#[test]
fn m14_custom_aggregates_work_on_both_sides() {
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.on_connection(longest_gap_utils::register_impl::<LongestGap, _>)
    });
    test.schema(SCHEMA);
    let mut conn = test.conn("b");
    conn.execute_batch(&[&note("one"), &note("two"), &note("three")]).unwrap();
    diesel::update(notes::table)
        .set(notes::stars.eq(notes::id * notes::id))
        .execute(&mut conn)
        .unwrap();
    let gap: i32 = notes::table.select(longest_gap(notes::stars)).get_result(&mut conn).unwrap();
    assert_eq!(gap, 5);
    diesel::sql_query("UPDATE notes SET stars = (SELECT longest_gap(stars) FROM notes)")
        .execute(&mut conn)
        .unwrap();
    assert!(texts(&mut test.plain("a")).iter().all(|(_, stars)| *stars == 5));
}

#[test]
fn an_attached_database_is_this_connections_own() {
    let test = test_cluster();
    let dir = tempfile::tempdir().unwrap();
    // The testkit's VFS holds only the cluster's files.
    let attach =
        format!("ATTACH 'file:{}?vfs=unix' AS other", dir.path().join("other.db").display());
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        conn.batch_execute(&attach).unwrap();
        conn.batch_execute("CREATE TABLE IF NOT EXISTS other.words (word TEXT)").unwrap();
        let add = format!("INSERT INTO other.words VALUES ('{node}')");
        assert_eq!(diesel::sql_query(add).execute(&mut conn), Ok(1));
        let joined = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM notes, other.words");
        assert_eq!(joined.get_result::<i64>(&mut conn), Ok(0));
    }
    assert_eq!(test.litefs("b").round_trips(), 0);
    let mut conn = test.conn("b");
    conn.batch_execute(&attach).unwrap();
    let copy = "INSERT INTO notes (text) SELECT word FROM other.words";
    let error = denied(diesel::sql_query(copy).execute(&mut conn));
    assert!(error.contains("attached"), "{error}");
    // In the other order both are local.
    let back = "INSERT INTO other.words SELECT text FROM notes";
    assert_eq!(diesel::sql_query(back).execute(&mut conn), Ok(0));
    // A transaction has one place: this node, once it has written to a table that exists here only.
    let error = denied(conn.transaction(|conn| {
        diesel::sql_query("DELETE FROM other.words").execute(conn)?;
        diesel::sql_query("INSERT INTO notes (text) VALUES ('x')").execute(conn)
    }));
    assert!(error.contains("transaction"), "{error}");
    // ATTACH is refused on the primary too.
    denied(
        conn.on_primary(|conn| conn.batch_execute("DELETE FROM notes; ATTACH 'evil.db' AS evil")),
    );
    let words: i64 = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM other.words")
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(words, 2, "the whole transaction was rolled back");
    let copied = diesel::sql_query(copy);
    let mut primary = test.conn("a");
    primary.batch_execute(&attach).unwrap();
    assert_eq!(copied.execute(&mut primary), Ok(2), "on the primary both are local");
}

#[test]
fn a_script_does_not_copy_from_its_temporary_table_on_a_replica() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let script = "CREATE TEMP TABLE mine (x); INSERT INTO mine VALUES ('x'); \
                  INSERT INTO notes (text) SELECT x FROM mine";
    let error = denied(conn.batch_execute(script));
    assert!(error.contains("temporary"), "{error}");
    conn.batch_execute(
        "CREATE TEMP TABLE mine (x); INSERT INTO mine SELECT text FROM notes; DROP TABLE mine",
    )
    .unwrap();
    test.conn("a").batch_execute(script).unwrap();
    assert_eq!(texts(&mut test.plain("a")).len(), 1);
}

#[test]
fn a_database_is_serialized_with_what_this_process_wrote() {
    let test = test_cluster();
    test.cluster.node("b").set_replication_delay(std::time::Duration::from_millis(50)).unwrap();
    let mut conn = test.conn("b");
    diesel::insert_into(notes::table).values(notes::text.eq("mine")).execute(&mut conn).unwrap();
    let bytes = conn.serialize_database_to_buffer();
    let mut bytes = bytes.try_as_slice().unwrap().to_vec();
    // SQLite cannot read a WAL database from memory:
    // <https://www.sqlite.org/c3ref/deserialize.html>.
    bytes[18..20].fill(1);
    let mut copy = LiteFsConnection::establish(":memory:").unwrap();
    copy.deserialize_readonly_database_from_buffer(&bytes).unwrap();
    assert_eq!(texts(&mut copy), [("mine".to_owned(), 0)]);
    denied(conn.deserialize_readonly_database_from_buffer(&bytes));
    assert_eq!(texts(&mut conn).len(), 1);
}

#[test]
fn the_statement_cache_can_be_switched_off_and_on() {
    let test = test_cluster();
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        for size in [CacheSize::Disabled, CacheSize::Unbounded, CacheSize::Disabled] {
            conn.set_prepared_statement_cache_size(size);
            diesel::insert_into(notes::table)
                .values(notes::text.eq("x"))
                .execute(&mut conn)
                .unwrap();
            assert_eq!(texts(&mut conn).len(), 1);
            diesel::delete(notes::table).execute(&mut conn).unwrap();
        }
    }
}

#[test]
fn a_batch_is_atomic_and_takes_one_round_trip() {
    let test = test_cluster();
    let star = || diesel::update(notes::table).set(notes::stars.eq(notes::stars + 1));
    let first = || diesel::delete(notes::table.filter(notes::text.eq("one")));
    for (node, cost) in [("b", 1), ("a", 0)] {
        let mut conn = test.conn(node);
        let before = test.litefs(node).round_trips();
        assert_eq!(
            conn.execute_batch(&[&note("one"), &note("two"), &star(), &first()]).unwrap(),
            [1, 1, 2, 1]
        );
        assert_eq!(test.litefs(node).round_trips() - before, cost);
        assert_eq!(texts(&mut conn), [("two".to_owned(), 1)]);
        let error = conn.execute_batch(&[&star(), &note("three"), &note("two")]).unwrap_err();
        assert!(error.to_string().contains("UNIQUE"), "{error}");
        assert_eq!(texts(&mut conn), [("two".to_owned(), 1)], "{node}");
        // Inside a transaction only the batch is undone.
        conn.transaction(|conn| {
            conn.execute_batch(&[&star(), &note("four")])?;
            conn.execute_batch(&[&star(), &note("four")]).unwrap_err();
            conn.execute_batch(&[&note("five")])
        })
        .unwrap();
        let expected =
            [("two", 2), ("four", 0), ("five", 0)].map(|(text, stars)| (text.to_owned(), stars));
        assert_eq!(texts(&mut conn), expected, "{node}");
        assert_eq!(conn.execute_batch(&[]).unwrap(), [0; 0]);
        for refused in
            ["COMMIT", "BEGIN", "SAVEPOINT x", "PRAGMA foreign_keys = ON", "SELECT 1; SELECT 2", ""]
        {
            denied(conn.execute_batch(&[&star(), &diesel::sql_query(refused)]));
        }
        assert_eq!(texts(&mut conn), expected, "{node}");
        diesel::delete(notes::table).execute(&mut conn).unwrap();
    }
}

#[test]
fn a_batch_writes_to_one_place_only() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("CREATE TEMP TABLE mine (x)").unwrap();
    let mine = || diesel::sql_query("INSERT INTO mine VALUES (1)");
    assert_eq!(conn.execute_batch(&[&mine(), &mine()]).unwrap(), [1, 1]);
    denied(conn.execute_batch(&[&mine(), &note("x")]));
    denied(conn.execute_batch(&[&note("x"), &mine()]));
    let count =
        diesel::dsl::sql::<BigInt>("SELECT count(*) FROM mine").get_result::<i64>(&mut conn);
    assert_eq!(count, Ok(2));
    assert!(texts(&mut test.plain("a")).is_empty());
    conn.batch_execute("PRAGMA query_only = ON").unwrap();
    let error = conn.execute_batch(&[&note("x")]).unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
}

fn integer(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
    sql: &str,
) -> i64 {
    diesel::dsl::sql::<BigInt>(&format!("SELECT {sql}")).get_result(conn).unwrap()
}

#[test]
fn pragmas_of_one_nodes_transaction_do_not_reach_another_node() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema("CREATE TABLE checked (n INTEGER CHECK (n > 0))");
    let bad = || diesel::sql_query("INSERT INTO checked VALUES (-1)");
    let mut conn = test.conn("b");
    for commits in [true, false] {
        let _ = conn.transaction(|conn| {
            diesel::sql_query("INSERT INTO checked VALUES (7)").execute(conn)?;
            conn.batch_execute("PRAGMA ignore_check_constraints = ON")?;
            if commits { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
        });
        assert!(bad().execute(&mut test.conn("c")).is_err());
        assert_eq!(bad().execute(&mut conn), Ok(1), "it is this connection's own setting");
        conn.batch_execute("PRAGMA ignore_check_constraints = OFF").unwrap();
    }
    let refused = conn.transaction(|conn| {
        diesel::sql_query("INSERT INTO checked VALUES (7)").execute(conn)?;
        conn.batch_execute("INSERT INTO checked VALUES (8); PRAGMA query_only = ON")
    });
    denied(refused);
    diesel::sql_query("INSERT INTO checked VALUES (9)").execute(&mut test.conn("c")).unwrap();
}

#[test]
fn foreign_keys_cannot_change_within_a_transaction() {
    let test = test_cluster();
    for node in ["a", "b"] {
        for (before, script) in [
            (1, "PRAGMA foreign_keys = OFF; DELETE FROM notes"),
            (0, "PRAGMA foreign_keys = OFF; DELETE FROM notes; PRAGMA foreign_keys = ON"),
        ] {
            let mut conn = test.conn(node);
            conn.batch_execute(&format!("PRAGMA foreign_keys = {before}")).unwrap();
            conn.transaction(|conn| conn.batch_execute(script)).unwrap();
            let now: Vec<OneInteger> =
                diesel::sql_query("PRAGMA foreign_keys").load(&mut conn).unwrap();
            assert_eq!(now[0].foreign_keys, before, "{node}");
        }
    }
}

#[derive(diesel::QueryableByName)]
struct OneInteger {
    #[diesel(sql_type = Integer)]
    foreign_keys: i32,
}

#[test]
fn a_batch_whose_commit_litefs_drops_is_not_acknowledged() {
    type Batch<'a> = &'a dyn Fn(&mut LiteFsConnection) -> QueryResult<()>;
    let batches: [Batch<'_>; 3] = [
        &|conn| conn.execute_batch(&[&note("one")]).map(drop),
        &|conn| {
            let rows = vec![notes::text.eq("two"), notes::text.eq("three")];
            litefs_diesel::BatchInsertDsl::execute_at_once(
                diesel::insert_into(notes::table).values(rows),
                conn,
            )
            .map(drop)
        },
        &|conn| conn.transaction(|conn| conn.execute_batch(&[&note("four")]).map(drop)),
    ];
    for batch in batches {
        // The node's LiteFS ends.
        let test = test_cluster();
        test.cluster.node("a").drop_next_commit().unwrap();
        let error = batch(&mut test.conn("a")).unwrap_err();
        assert!(
            matches!(Failure::of(&error), Some(Failure::OutcomeUnknown | Failure::TransactionLost)),
            "{error}"
        );
    }
}

#[test]
fn a_batch_on_temporary_tables_is_tracked() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("CREATE TEMP TABLE mine (x)").unwrap();
    let mixed = conn.transaction(|conn| {
        conn.execute_batch(&[&diesel::sql_query("INSERT INTO mine VALUES (1)")])?;
        note_into(conn, "x")
    });
    denied(mixed);
    assert_eq!(integer(&mut conn, "count(*) FROM mine"), 0, "rolled back with the rest");
    // The copy contains the writes of this process.
    note_into(&mut conn, "y").unwrap();
    let copy = diesel::sql_query("INSERT INTO mine SELECT count(*) FROM notes");
    test.cluster.node("b").set_replication_delay(std::time::Duration::from_millis(50)).unwrap();
    note_into(&mut conn, "z").unwrap();
    conn.execute_batch(&[&copy]).unwrap();
    assert_eq!(integer(&mut conn, "max(x) FROM mine"), 2);
    // From here on `notes` is another table.
    conn.execute_batch(&[&diesel::sql_query(
        "CREATE TEMP TABLE notes (id INTEGER PRIMARY KEY, text TEXT, stars)",
    )])
    .unwrap();
    note_into(&mut conn, "temporary").unwrap();
    test.sync();
    assert_eq!(texts(&mut test.plain("a")).len(), 2);
}

fn note_into(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

#[test]
fn rows_of_a_batch_whose_last_statement_returns_none() {
    let test = test_cluster();
    for node in ["a", "b"] {
        let rows = ["x", "y", "x"].map(|text| notes::text.eq(text)).to_vec();
        let insert = diesel::insert_or_ignore_into(notes::table)
            .values(rows)
            .returning((notes::id, notes::text));
        let mut conn = test.conn(node);
        let back: Vec<(i32, String)> =
            litefs_diesel::BatchInsertDsl::get_results_at_once(insert, &mut conn).unwrap();
        assert_eq!(back, [(1, "x".into()), (2, "y".into())], "{node}");
        diesel::delete(notes::table).execute(&mut conn).unwrap();
        test.sync();
    }
}

#[test]
fn or_rollback_in_a_batch() {
    let test = test_cluster();
    test.schema("INSERT INTO notes (text) VALUES ('taken')");
    let or_rollback = || diesel::sql_query("INSERT OR ROLLBACK INTO notes (text) VALUES ('taken')");
    for node in ["a", "b"] {
        let mut conn = test.conn(node);
        let error = conn.execute_batch(&[&note("new"), &or_rollback()]).unwrap_err();
        assert!(error.to_string().contains("UNIQUE"), "{node}: {error}");
        let result = conn.transaction(|conn| {
            conn.execute_batch(&[&note("new"), &or_rollback()]).unwrap_err();
            let error = note_into(conn, "outside").unwrap_err();
            assert_eq!(Failure::of(&error), Some(Failure::TransactionLost), "{node}: {error}");
            Err::<(), diesel::result::Error>(error)
        });
        assert!(result.is_err());
        assert_eq!(texts(&mut test.plain("a")).len(), 1, "{node}");
        // The connection is still usable.
        conn.transaction(|conn| conn.execute_batch(&[&note("later")])).unwrap();
        diesel::delete(notes::table.filter(notes::text.eq("later"))).execute(&mut conn).unwrap();
    }
}

#[test]
fn session_functions_in_statements_that_return_rows() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("CREATE TEMP TABLE mine (x)").unwrap();
    note_into(&mut conn, "one").unwrap();
    let keep = diesel::dsl::sql::<BigInt>(
        "INSERT INTO temp.mine VALUES (last_insert_rowid()) RETURNING x",
    );
    assert_eq!(keep.get_result::<i64>(&mut conn), Ok(1));
    test.sync();
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    let add = "INSERT INTO notes (text, stars) VALUES ('two', last_insert_rowid()) RETURNING stars";
    assert_eq!(diesel::dsl::sql::<Integer>(add).get_result::<i32>(&mut conn), Ok(1));
    assert_eq!(integer(&mut conn, "last_insert_rowid()"), 2);
}

#[test]
fn m15_batches_and_scripts_keep_the_connections_last_rowid() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema(SCHEMA);
    test.schema("CREATE TABLE child (parent INTEGER)");
    let parents = |conn: &mut SqliteConnection| {
        diesel::dsl::sql::<Integer>("SELECT parent FROM child ORDER BY rowid")
            .load::<i32>(conn)
            .unwrap()
    };
    let child = "INSERT INTO child (parent) VALUES (last_insert_rowid())";
    for node in ["b", "a"] {
        let mut conn = test.conn(node);
        let mine = |conn: &mut LiteFsConnection, id: i32| {
            diesel::sql_query(format!("INSERT INTO notes (id, text) VALUES ({id}, 'mine {id}')"))
                .execute(conn)
                .unwrap();
            // An insert of another node, on the same connection of the primary.
            diesel::sql_query(format!(
                "INSERT INTO notes (id, text) VALUES ({}, 'theirs {id}')",
                id + 1000
            ))
            .execute(&mut test.conn("c"))
            .unwrap();
        };
        mine(&mut conn, 10);
        conn.execute_batch(&[&diesel::sql_query(child)]).unwrap();
        mine(&mut conn, 20);
        conn.batch_execute(&format!("{child}; SELECT 1")).unwrap();
        conn.batch_execute(&format!("INSERT INTO notes (id, text) VALUES (30, 'x'); {child}"))
            .unwrap();
        assert_eq!(parents(&mut test.plain("a")), [10, 20, 30], "{node}");

        let rowid = |conn: &mut LiteFsConnection| integer(conn, "last_insert_rowid()");
        let insert = |id: i32| {
            diesel::sql_query(format!("INSERT INTO notes (id, text) VALUES ({id}, 'n{id}')"))
        };
        conn.execute_batch(&[&insert(7), &diesel::sql_query("DELETE FROM notes WHERE 0")]).unwrap();
        assert_eq!(rowid(&mut conn), 7, "{node}");
        insert(1).execute(&mut test.conn("c")).unwrap();
        let ignored =
            diesel::sql_query("INSERT OR IGNORE INTO notes (id, text) VALUES (1, 'taken')");
        conn.execute_batch(&[&ignored, &diesel::sql_query("UPDATE notes SET stars = 1")]).unwrap();
        assert_eq!(rowid(&mut conn), 7, "{node}");
        let upsert = "INSERT INTO notes (id, text) VALUES (1, 'n1') \
                      ON CONFLICT (id) DO UPDATE SET stars = 2";
        diesel::sql_query(upsert).execute(&mut conn).unwrap();
        assert_eq!(rowid(&mut conn), 7, "{node}");
        conn.execute_batch(&[&insert(8), &insert(8)]).unwrap_err();
        assert_eq!(integer(&mut conn, "changes()"), 0, "{node}");
        conn.batch_execute("DELETE FROM notes; DELETE FROM child").unwrap();
    }
}
