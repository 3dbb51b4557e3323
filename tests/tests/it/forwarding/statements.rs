//! Where statements run: reads on the node, writes on the primary.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use litefs_diesel::LiteFs;

use super::{SCHEMA, items, names, test_cluster};

#[test]
fn m1_reads_never_touch_the_network() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for _ in 0..50 {
        assert!(names(&mut conn).is_empty());
        let _: i64 = items::table.count().get_result(&mut conn).unwrap();
        diesel::sql_query("WITH x AS (SELECT 1) SELECT * FROM x, items")
            .execute(&mut conn)
            .unwrap();
        conn.batch_execute("SELECT 1; SELECT count(*) FROM items").unwrap();
    }
    assert_eq!(test.litefs("b").round_trips(), 0);
}

#[test]
fn m2_writes_on_the_primary_run_locally() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    let id: i32 = diesel::insert_into(items::table)
        .values(items::name.eq("x"))
        .returning(items::id)
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(id, 1);
    assert_eq!(diesel::update(items::table).set(items::price.eq(2.0)).execute(&mut conn), Ok(1));
    assert_eq!(test.litefs("a").round_trips(), 0);
    assert_eq!(names(&mut test.plain("a")), ["x"]);
}

#[test]
fn m3_every_kind_of_write_is_forwarded_with_its_count() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let mut count = |sql: &str| diesel::sql_query(sql).execute(&mut conn).unwrap();
    assert_eq!(count("INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')"), 3);
    assert_eq!(count("UPDATE items SET price = 1 WHERE id > 1"), 2);
    assert_eq!(count("UPDATE items SET price = 1 WHERE id > 9"), 0);
    assert_eq!(count("REPLACE INTO items (id, name) VALUES (3, 'cc')"), 1);
    assert_eq!(
        count(
            "INSERT INTO items (id, name) VALUES (1, 'z') ON CONFLICT (id) DO UPDATE \
             SET name = excluded.name"
        ),
        1
    );
    assert_eq!(
        count("WITH n(x) AS (VALUES ('d'), ('e')) INSERT INTO items (name) SELECT x FROM n"),
        2
    );
    assert_eq!(count("DELETE FROM items WHERE id = 2"), 1);
    count("CREATE INDEX by_price ON items (price)");
    conn.batch_execute(
        "INSERT INTO items (name) VALUES ('f'); UPDATE items SET name = 'ff' WHERE name = 'f'",
    )
    .unwrap();
    let expected = ["z", "cc", "d", "e", "ff"];
    assert_eq!(names(&mut test.plain("a")), expected);
    assert_eq!(names(&mut conn), expected);
    let index: i64 =
        diesel::dsl::sql::<BigInt>("SELECT count(*) FROM sqlite_schema WHERE name = 'by_price'")
            .get_result(&mut conn)
            .unwrap();
    assert_eq!(index, 1);
}

#[test]
fn m8_without_litefs_everything_is_local() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let litefs = LiteFs::builder(path.to_str().unwrap()).start().unwrap();
    let mut conn = litefs.establish().unwrap();
    conn.batch_execute(SCHEMA).unwrap();
    conn.transaction(|conn| {
        diesel::insert_into(items::table).values(items::name.eq("x")).execute(conn)
    })
    .unwrap();
    assert_eq!(names(&mut conn), ["x"]);
    assert_eq!((litefs.round_trips(), litefs.rpc_address()), (0, None));
}
