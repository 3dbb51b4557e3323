//! `BatchInsertDsl` for batches with ON CONFLICT, and for batches without RETURNING.

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::upsert::excluded;
use litefs_diesel::{BatchInsertDsl, LiteFsConnection};
use litefs_tests::TestCluster;

diesel::table! {
    items { id -> Integer, name -> Text, price -> Nullable<Integer>, }
}

const SCHEMA: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, 
        price INTEGER DEFAULT 7 CHECK (price >= 0));
     INSERT INTO items VALUES (1, 'one', 10), (2, 'two', 20)";

type Item = (i32, String, Option<i32>);

/// `None` stands for the column's default: one statement per row.
#[derive(Clone, Insertable)]
#[diesel(table_name = items)]
struct Sparse {
    name: &'static str,
    price: Option<i32>,
}

fn sparse(name: &'static str, price: Option<i32>) -> Sparse {
    Sparse { name, price }
}

fn item(id: i32, name: &str, price: Option<i32>) -> Item {
    (id, name.to_owned(), price)
}

fn all(conn: &mut LiteFsConnection) -> Vec<Item> {
    items::table.order(items::id).load(conn).unwrap()
}

/// Runs `case` without LiteFS, on a primary, and on a replica, and counts the round trips.
fn everywhere(round_trips: u64, case: impl Fn(&mut LiteFsConnection)) {
    let mut local = LiteFsConnection::establish(":memory:").unwrap();
    local.batch_execute(SCHEMA).unwrap();
    case(&mut local);
    for node in ["a", "b"] {
        let test = TestCluster::start(&["a", "b"]);
        test.schema(SCHEMA);
        case(&mut test.conn(node));
        assert_eq!(test.litefs("b").round_trips(), if node == "b" { round_trips } else { 0 });
    }
}

type NameAndPrice =
    (diesel::dsl::Eq<items::name, &'static str>, diesel::dsl::Eq<items::price, i32>);

fn named(rows: &[(&'static str, i32)]) -> Vec<NameAndPrice> {
    rows.iter().map(|(name, price)| (items::name.eq(*name), items::price.eq(*price))).collect()
}

#[test]
fn do_update_of_a_batch() {
    everywhere(1, |conn| {
        let changed = diesel::insert_into(items::table)
            .values(named(&[("two", 5), ("new", 6), ("new", 8)]))
            .on_conflict(items::name)
            .do_update()
            .set(items::price.eq(items::price + excluded(items::price)))
            .execute_at_once(conn);
        assert_eq!(changed, Ok(3));
        assert_eq!(all(conn)[1..], [item(2, "two", Some(25)), item(3, "new", Some(14))]);
    });
}

#[test]
fn do_update_of_a_batch_returns_the_rows_in_order() {
    everywhere(2, |conn| {
        let upsert = || {
            diesel::insert_into(items::table)
                .values(named(&[("new", 1), ("two", 2), ("one", 3)]))
                .on_conflict(items::name)
                .do_update()
                .set((
                    items::price.eq(excluded(items::price)),
                    items::name.eq("x".to_owned() + "y"),
                ))
        };
        let taken = upsert().get_results_at_once::<Item>(conn).unwrap_err();
        assert!(
            matches!(taken, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
            "{taken}"
        );
        assert_eq!(all(conn).len(), 2, "all or none");
        let upsert = diesel::insert_into(items::table)
            .values(named(&[("new", 1), ("two", 2), ("one", 3)]))
            .on_conflict(items::name)
            .do_update()
            .set(items::price.eq(excluded(items::price)));
        let back: Vec<Item> = upsert.get_results_at_once(conn).unwrap();
        assert_eq!(
            back,
            [item(3, "new", Some(1)), item(2, "two", Some(2)), item(1, "one", Some(3))]
        );
    });
}

#[test]
fn do_update_of_a_batch_with_values_of_its_own_and_returning() {
    everywhere(2, |conn| {
        let upsert = |price: i32| {
            diesel::insert_into(items::table)
                .values(named(&[("one", 3), ("two", 4)]))
                .on_conflict(items::name)
                .do_update()
                .set(items::price.eq(price))
                .returning((items::id, items::price))
        };
        let back: Vec<(i32, Option<i32>)> = upsert(99).get_results_at_once(conn).unwrap();
        assert_eq!(back, [(1, Some(99)), (2, Some(99))]);
        assert_eq!(upsert(98).execute_at_once(conn), Ok(2));
        assert_eq!(all(conn), [item(1, "one", Some(98)), item(2, "two", Some(98))]);
    });
}

#[test]
fn do_nothing_returns_the_rows_that_are_new() {
    everywhere(3, |conn| {
        let insert = |names: [&'static str; 3]| {
            let rows = named(&names.map(|name| (name, 1)));
            diesel::insert_into(items::table).values(rows).on_conflict_do_nothing()
        };
        assert_eq!(insert(["one", "three", "two"]).execute_at_once(conn), Ok(1));
        let back: Vec<Item> = insert(["two", "four", "three"]).get_results_at_once(conn).unwrap();
        assert_eq!(back, [item(4, "four", Some(1))]);
        let names = insert(["five", "four", "six"]).returning(items::name);
        assert_eq!(
            names.get_results_at_once::<String>(conn),
            Ok(vec!["five".to_owned(), "six".to_owned()])
        );
    });
}

#[test]
fn rows_with_defaults_are_upserted_one_by_one() {
    everywhere(2, |conn| {
        let rows = vec![sparse("one", None), sparse("new", None), sparse("two", Some(21))];
        let upsert = || {
            diesel::insert_into(items::table).values(rows.clone()).map_rows(|row| {
                row.on_conflict(items::name)
                    .do_update()
                    .set(items::price.eq(excluded(items::price)))
            })
        };
        assert_eq!(upsert().execute_at_once(conn), Ok(3));
        let back: Vec<Item> = upsert().get_results_at_once(conn).unwrap();
        assert_eq!(
            back,
            [item(1, "one", Some(7)), item(3, "new", Some(7)), item(2, "two", Some(21))]
        );
    });
}

#[test]
fn a_batch_without_returning_gives_all_columns() {
    everywhere(3, |conn| {
        let rows = vec![sparse("three", None), sparse("four", Some(4))];
        let back: Vec<Item> =
            diesel::insert_into(items::table).values(rows).get_results_at_once(conn).unwrap();
        assert_eq!(back, [item(3, "three", Some(7)), item(4, "four", Some(4))]);
        let back: Vec<Item> = diesel::insert_into(items::table)
            .values(named(&[("five", 5)]))
            .get_results_at_once(conn)
            .unwrap();
        assert_eq!(back, [item(5, "five", Some(5))]);
        let back: Vec<Item> = diesel::replace_into(items::table)
            .values(named(&[("five", 6), ("six", 6)]))
            .get_results_at_once(conn)
            .unwrap();
        assert_eq!(back, [item(6, "five", Some(6)), item(7, "six", Some(6))]);
    });
}

#[test]
fn batches_of_no_rows_do_nothing() {
    everywhere(0, |conn| {
        let upsert =
            || diesel::insert_into(items::table).values(named(&[])).on_conflict_do_nothing();
        assert_eq!(upsert().execute_at_once(conn), Ok(0));
        assert_eq!(upsert().get_results_at_once::<Item>(conn), Ok(vec![]));
        let insert = diesel::insert_into(items::table).values(Vec::<Sparse>::new());
        assert_eq!(insert.get_results_at_once::<Item>(conn), Ok(vec![]));
    });
}

#[test]
fn a_large_batch_of_upserts_costs_one_round_trip() {
    everywhere(2, |conn| {
        let rows = || -> Vec<_> {
            (0..5_000).map(|at| (items::name.eq(format!("n{at}")), items::price.eq(at))).collect()
        };
        let upsert = || {
            diesel::insert_into(items::table)
                .values(rows())
                .on_conflict(items::name)
                .do_update()
                .set(items::price.eq(items::price + 1))
        };
        assert_eq!(upsert().execute_at_once(conn), Ok(5_000));
        let back: Vec<Item> = upsert().get_results_at_once(conn).unwrap();
        assert_eq!((back.len(), &back[4_999]), (5_000, &item(5_002, "n4999", Some(5_000))));
    });
}
