//! Connections of other kinds, aggregates, attached databases, serialization and the cache.

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use diesel::sqlite::{SqliteAggregateFunction, SqliteConnection};
use litefs_diesel::LiteFsConnection;
use litefs_tests::TestCluster;

use super::{SCHEMA, denied, note, notes, test_cluster, texts};

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
fn a_database_is_serialized_with_this_processs_writes() {
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
