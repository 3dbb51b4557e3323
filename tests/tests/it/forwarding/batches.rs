//! Inserts of many rows.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use litefs_diesel::BatchInsertDsl;

use super::{changes, items, last_insert_rowid, test_cluster};

#[derive(Insertable)]
#[diesel(table_name = items)]
struct NewItem {
    name: String,
    price: Option<f64>,
}

#[test]
fn m5_ten_thousand_rows_without_defaults_are_one_insert() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let rows = |prefix: &str| -> Vec<_> {
        (0..10_000)
            .map(|i| (items::name.eq(format!("{prefix}{i}")), items::price.eq(f64::from(i))))
            .collect()
    };
    assert_eq!(diesel::insert_into(items::table).values(rows("a")).execute(&mut conn), Ok(10_000));
    let back: Vec<(i32, String)> = diesel::insert_into(items::table)
        .values(rows("b"))
        .returning((items::id, items::name))
        .get_results_at_once(&mut conn)
        .unwrap();
    assert_eq!((back.len(), &back[9_999]), (10_000, &(20_000, "b9999".to_owned())));
    assert_eq!(test.litefs("b").round_trips(), 2);
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 20_000);
}

fn with_defaults(prefix: &str, count: i32) -> Vec<NewItem> {
    (0..count)
        .map(|i| NewItem {
            name: format!("{prefix}{i}"),
            price: (i % 2 == 0).then(|| f64::from(i)),
        })
        .collect()
}

#[test]
fn m5_rows_with_defaults_are_atomic_through_diesels_call() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    assert_eq!(
        diesel::insert_into(items::table).values(with_defaults("a", 500)).execute(&mut conn),
        Ok(500)
    );
    let mut taken = with_defaults("b", 100);
    taken.push(NewItem { name: "a5".into(), price: None });
    let error = diesel::insert_into(items::table).values(taken).execute(&mut conn).unwrap_err();
    assert!(
        matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
        "{error:?}"
    );
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 500);
}

#[test]
fn x12_m5_rows_with_defaults_take_one_trip_through_our_call() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let insert = |rows| diesel::insert_into(items::table).values(rows);
    assert_eq!(insert(with_defaults("a", 10_000)).execute_at_once(&mut conn), Ok(10_000));
    let prices: Vec<Option<f64>> = insert(with_defaults("b", 10_000))
        .returning(items::price)
        .get_results_at_once(&mut conn)
        .unwrap();
    assert_eq!((prices.len(), prices[1], prices[2]), (10_000, None, Some(2.0)));
    assert_eq!(test.litefs("b").round_trips(), 2);
    let mut taken = with_defaults("c", 100);
    taken.push(NewItem { name: "a5".into(), price: None });
    let error = insert(taken).execute_at_once(&mut conn).unwrap_err();
    assert!(
        matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
        "{error:?}"
    );
    // The same inside a transaction, which stays usable after a batch that failed.
    conn.transaction(|conn| {
        insert(with_defaults("d", 10)).execute_at_once(conn)?;
        insert(with_defaults("d", 1)).execute_at_once(conn).unwrap_err();
        insert(with_defaults("e", 10)).execute_at_once(conn)
    })
    .unwrap();
    // The same on the primary.
    assert_eq!(insert(with_defaults("f", 10)).execute_at_once(&mut test.conn("a")), Ok(10));
    let count: i64 = items::table.count().get_result(&mut test.plain("a")).unwrap();
    assert_eq!(count, 20_030);
}

#[test]
fn m5_a_thousand_equal_rows_are_atomic() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let rows = |prefix: &str, taken: Option<usize>| -> Vec<_> {
        let name = |i| if taken == Some(i) { "a7".to_owned() } else { format!("{prefix}{i}") };
        (0..1_000).map(|i| NewItem { name: name(i), price: None }).collect()
    };
    let insert = |rows| diesel::insert_into(items::table).values(rows);
    let count = || items::table.count().get_result::<i64>(&mut test.plain("a")).unwrap();
    assert_eq!(insert(rows("a", None)).execute_at_once(&mut conn), Ok(1_000));
    for taken in [0, 1, 500, 998, 999] {
        let error = insert(rows("b", Some(taken))).execute_at_once(&mut conn).unwrap_err();
        assert!(
            matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)),
            "{error:?}"
        );
        assert_eq!(count(), 1_000);
    }
    conn.transaction(|conn| {
        insert(rows("c", None)).execute_at_once(conn)?;
        insert(rows("d", Some(600))).execute_at_once(conn).unwrap_err();
        insert(rows("e", None)).execute_at_once(conn)
    })
    .unwrap();
    assert_eq!(count(), 3_000);
    let said = diesel::select((last_insert_rowid(), changes())).get_result::<(i64, i64)>(&mut conn);
    assert_eq!(said, Ok((3_000, 1)));
    let priced = items::table.filter(items::price.is_not_null()).count();
    assert_eq!(priced.get_result::<i64>(&mut test.plain("a")), Ok(0));
}
