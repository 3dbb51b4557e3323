//! Inserts with enough rows that the library may send and execute them in another form.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::{Conn, fresh_with};
use crate::refused;

diesel::table! {
    nodes (id) {
        id -> Integer,
        up -> Nullable<Integer>,
        name -> Text,
    }
}

const NODES: &str = "
    CREATE TABLE nodes (id INTEGER PRIMARY KEY, up INTEGER, name TEXT NOT NULL UNIQUE);
    CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
";
const TREE: &str = "CREATE TABLE nodes (id INTEGER PRIMARY KEY, up INTEGER REFERENCES nodes (id), \
                    name TEXT NOT NULL UNIQUE)";
const ROWS: i32 = 1_000;

type Node = (
    diesel::dsl::Eq<nodes::id, i32>,
    diesel::dsl::Eq<nodes::up, i32>,
    diesel::dsl::Eq<nodes::name, String>,
);

/// Each row refers to the next one, so that only the statement as a whole satisfies the constraint.
fn rows(count: i32) -> Vec<Node> {
    let row = |id: i32| {
        (nodes::id.eq(id), nodes::up.eq((id + 1).min(count)), nodes::name.eq(format!("node {id}")))
    };
    (1..=count).map(row).collect()
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Counters {
    #[diesel(sql_type = BigInt)]
    rowid: i64,
    #[diesel(sql_type = BigInt)]
    changes: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

fn counters(conn: &mut Conn) -> Counters {
    let sql = "SELECT last_insert_rowid() AS rowid, changes() AS changes, total_changes() AS total";
    diesel::sql_query(sql).get_result(conn).unwrap()
}

fn sum(conn: &mut Conn) -> (i64, Option<i64>) {
    use diesel::dsl::{count_star, sum};
    nodes::table.select((count_star(), sum(nodes::up))).first(conn).unwrap()
}

#[test]
fn many_rows_in_one_statement() {
    let conn = &mut *fresh_with(NODES);
    let before = counters(conn).total;
    assert_eq!(diesel::insert_into(nodes::table).values(rows(ROWS)).execute(conn), Ok(1_000));
    assert_eq!(counters(conn), Counters { rowid: 1_000, changes: 1_000, total: before + 1_000 });
    assert_eq!(sum(conn), (1_000, Some(501_499)));
    assert_eq!(
        diesel::update(nodes::table.find(0)).set(nodes::name.eq("none")).execute(conn),
        Ok(0)
    );
    assert_eq!(counters(conn), Counters { rowid: 1_000, changes: 0, total: before + 1_000 });
}

#[test]
fn many_rows_in_a_transaction_and_their_numbers_afterwards() {
    let conn = &mut *fresh_with(NODES);
    let before = counters(conn).total;
    let within = conn.transaction(|conn| {
        diesel::insert_into(nodes::table).values(rows(ROWS)).execute(conn)?;
        QueryResult::Ok(counters(conn))
    });
    let expected = || Counters { rowid: 1_000, changes: 1_000, total: before + 1_000 };
    assert_eq!(within, Ok(expected()));
    assert_eq!(counters(conn), expected());
    assert_eq!(sum(conn).0, 1_000);
}

#[test]
fn rows_of_one_statement_may_refer_to_later_ones() {
    let conn = &mut *fresh_with(TREE);
    conn.batch_execute("PRAGMA foreign_keys = ON").unwrap();
    assert_eq!(diesel::insert_into(nodes::table).values(rows(ROWS)).execute(conn), Ok(1_000));
    let stray = diesel::insert_into(nodes::table).values((
        nodes::id.eq(0),
        nodes::up.eq(5_000),
        nodes::name.eq("x"),
    ));
    let (kind, _) = refused(stray.execute(conn));
    assert_eq!(kind, "foreign key");
}

#[test]
fn triggers_see_each_row() {
    let conn = &mut *fresh_with(NODES);
    conn.batch_execute(
        "CREATE TRIGGER seen AFTER INSERT ON nodes WHEN new.id % 100 = 0 BEGIN
             INSERT INTO log (what) SELECT count(*) || ' of ' || new.id FROM nodes;
         END",
    )
    .unwrap();
    assert_eq!(diesel::insert_into(nodes::table).values(rows(ROWS)).execute(conn), Ok(1_000));
    let seen =
        diesel::dsl::sql::<diesel::sql_types::Text>("SELECT group_concat(what, ', ') FROM log");
    assert!(
        seen.get_result::<String>(conn).unwrap().starts_with("100 of 100, 200 of 200, 300 of 300")
    );
}

#[test]
fn a_row_that_conflicts_fails_the_whole_statement() {
    let conn = &mut *fresh_with(NODES);
    conn.batch_execute("INSERT INTO nodes (id, name) VALUES (7000, 'node 700')").unwrap();
    let before = counters(conn);
    let failed = refused(diesel::insert_into(nodes::table).values(rows(ROWS)).execute(conn));
    assert_eq!(failed, ("unique", "UNIQUE constraint failed: nodes.name".into()));
    assert_eq!(sum(conn), (1, None));
    assert_eq!(counters(conn).total, before.total);
    let ignored = diesel::insert_or_ignore_into(nodes::table).values(rows(ROWS)).execute(conn);
    assert_eq!(ignored, Ok(999));
    assert_eq!(sum(conn).0, 1_000);
}

#[test]
fn rows_that_replace_others() {
    let conn = &mut *fresh_with(NODES);
    assert_eq!(diesel::insert_into(nodes::table).values(rows(500)).execute(conn), Ok(500));
    assert_eq!(diesel::replace_into(nodes::table).values(rows(ROWS)).execute(conn), Ok(1_000));
    assert_eq!((sum(conn).0, counters(conn).changes), (1_000, 1_000));
}
