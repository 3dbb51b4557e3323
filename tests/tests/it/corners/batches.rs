//! `execute_batch`: statements in one transaction and one request.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::TestCluster;

use super::{SCHEMA, denied, integer, note, note_into, notes, test_cluster, texts};

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
