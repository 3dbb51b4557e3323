//! Inserts of every kind.

use diesel::prelude::*;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{BLOG, FULL_BLOG, Named, Sparse, User, posts, user, users};

fn all(conn: &mut Conn) -> Vec<User> {
    users::table.order(users::id).load(conn).unwrap()
}

#[test]
fn a_row_with_its_defaults() {
    let conn = &mut *fresh_with(BLOG);
    assert_eq!(
        diesel::insert_into(users::table).values(users::name.eq("Sean")).execute(conn),
        Ok(1)
    );
    assert_eq!(all(conn), [user(1, "Sean", None, 18)]);
}

#[test]
fn a_tuple_of_columns() {
    let conn = &mut *fresh_with(BLOG);
    let values = (users::name.eq("Sean"), users::hair.eq(Some("black")), users::id.eq(7));
    assert_eq!(diesel::insert_into(users::table).values(values).execute(conn), Ok(1));
    assert_eq!(all(conn), [user(7, "Sean", Some("black"), 18)]);
}

#[test]
fn a_struct() {
    let conn = &mut *fresh_with(BLOG);
    let sean = user(3, "Sean", None, 30);
    assert_eq!(diesel::insert_into(users::table).values(&sean).execute(conn), Ok(1));
    assert_eq!(
        sean.clone().insert_into(users::table).execute(conn).map_err(|_| "taken"),
        Err("taken")
    );
    assert_eq!(all(conn), [sean]);
}

#[test]
fn none_is_the_default_or_null() {
    let conn = &mut *fresh_with(BLOG);
    let row = Sparse { name: "Sean", hair: None, age: None };
    assert_eq!(diesel::insert_into(users::table).values(&row).execute(conn), Ok(1));
    assert_eq!(all(conn), [user(1, "Sean", None, 18)]);
}

#[test]
fn an_option_of_an_assignment_may_be_absent() {
    let conn = &mut *fresh_with(BLOG);
    let age: Option<i32> = None;
    let values = (users::name.eq("Sean"), age.map(|age| users::age.eq(age)));
    assert_eq!(diesel::insert_into(users::table).values(values).execute(conn), Ok(1));
    assert_eq!(all(conn), [user(1, "Sean", None, 18)]);
}

#[test]
fn a_batch_without_defaults() {
    let conn = &mut *fresh_with(BLOG);
    let rows = [Named { name: "Sean", age: 30 }, Named { name: "Tess", age: 28 }];
    assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(2));
    assert_eq!(all(conn), [user(1, "Sean", None, 30), user(2, "Tess", None, 28)]);
}

#[test]
fn a_batch_in_a_vector_of_tuples() {
    let conn = &mut *fresh_with(BLOG);
    let rows = vec![
        (users::name.eq("Sean"), users::age.eq(1)),
        (users::name.eq("Tess"), users::age.eq(2)),
    ];
    assert_eq!(diesel::insert_into(users::table).values(rows).execute(conn), Ok(2));
    assert_eq!(all(conn), [user(1, "Sean", None, 1), user(2, "Tess", None, 2)]);
}

#[test]
fn a_batch_with_defaults() {
    let conn = &mut *fresh_with(BLOG);
    let rows = vec![
        Sparse { name: "Sean", hair: Some("black"), age: None },
        Sparse { name: "Tess", hair: None, age: Some(28) },
        Sparse { name: "Ada", hair: None, age: None },
    ];
    assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(3));
    assert_eq!(
        all(conn),
        [user(1, "Sean", Some("black"), 18), user(2, "Tess", None, 28), user(3, "Ada", None, 18)]
    );
}

#[test]
fn an_empty_batch_inserts_nothing() {
    let conn = &mut *fresh_with(BLOG);
    assert_eq!(
        diesel::insert_into(users::table).values(Vec::<Named<'_>>::new()).execute(conn),
        Ok(0)
    );
    assert_eq!(
        diesel::insert_into(users::table).values(Vec::<Sparse<'_>>::new()).execute(conn),
        Ok(0)
    );
    assert_eq!(all(conn), []);
}

#[test]
fn a_batch_is_all_or_nothing() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows = [Named { name: "New", age: 1 }, Named { name: "Sean", age: 2 }];
    let expected = ("unique", "UNIQUE constraint failed: users.name".to_owned());
    assert_eq!(refused(diesel::insert_into(users::table).values(&rows).execute(conn)), expected);
    let rows = vec![
        Sparse { name: "New", hair: None, age: None },
        Sparse { name: "Sean", hair: None, age: Some(1) },
        Sparse { name: "Newer", hair: None, age: None },
    ];
    assert_eq!(refused(diesel::insert_into(users::table).values(&rows).execute(conn)), expected);
    assert_eq!(all(conn), crate::schema::everybody());
}

#[test]
fn a_batch_with_defaults_in_a_transaction_that_rolls_back() {
    let conn = &mut *fresh_with(BLOG);
    let result = conn.transaction(|conn| {
        let rows = vec![
            Sparse { name: "a", hair: None, age: None },
            Sparse { name: "b", hair: None, age: Some(1) },
        ];
        assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(2));
        assert_eq!(all(conn).len(), 2);
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(result, Err(diesel::result::Error::RollbackTransaction));
    assert_eq!(all(conn), []);
}

#[test]
fn a_row_of_defaults_only() {
    let conn = &mut *fresh_with(
        "CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 7)",
    );
    diesel::table! { counters { id -> Integer, n -> Integer, } }
    assert_eq!(diesel::insert_into(counters::table).default_values().execute(conn), Ok(1));
    assert_eq!(counters::table.load::<(i32, i32)>(conn), Ok(vec![(1, 7)]));
    let row: (i32, i32) = diesel::insert_into(counters::table)
        .default_values()
        .returning(counters::all_columns)
        .get_result(conn)
        .unwrap();
    assert_eq!(row, (2, 7));
}

#[test]
fn insert_or_ignore_counts_inserted_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let insert = |name| Named { name, age: 1 };
    assert_eq!(
        diesel::insert_or_ignore_into(users::table).values(&insert("Sean")).execute(conn),
        Ok(0)
    );
    assert_eq!(
        diesel::insert_or_ignore_into(users::table).values(&insert("New")).execute(conn),
        Ok(1)
    );
    let rows = [insert("Tess"), insert("Newer"), insert("New")];
    assert_eq!(diesel::insert_or_ignore_into(users::table).values(&rows).execute(conn), Ok(1));
    let names: Vec<String> = users::table.order(users::id).select(users::name).load(conn).unwrap();
    assert_eq!(names, ["Sean", "Tess", "Ada", "New", "Newer"]);
}

#[test]
fn insert_or_ignore_of_a_batch_with_defaults() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows = vec![
        Sparse { name: "Tess", hair: None, age: None },
        Sparse { name: "New", hair: None, age: Some(5) },
        Sparse { name: "New", hair: None, age: Some(6) },
    ];
    assert_eq!(diesel::insert_or_ignore_into(users::table).values(&rows).execute(conn), Ok(1));
    assert_eq!(all(conn).last(), Some(&user(4, "New", None, 5)));
}

#[test]
fn replace_into_deletes_conflicting_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    // `Tess` has id 2, and no row refers to it.
    diesel::delete(posts::table).execute(conn).unwrap();
    let row = (users::id.eq(1), users::name.eq("Tess"), users::age.eq(99));
    assert_eq!(diesel::replace_into(users::table).values(row).execute(conn), Ok(1));
    assert_eq!(all(conn), [user(1, "Tess", None, 99), user(3, "Ada", Some("grey"), 36)]);
}

#[test]
fn replace_into_with_a_batch() {
    let conn = &mut *fresh_with(BLOG);
    let rows =
        [Named { name: "a", age: 1 }, Named { name: "b", age: 2 }, Named { name: "a", age: 3 }];
    assert_eq!(diesel::replace_into(users::table).values(&rows).execute(conn), Ok(3));
    assert_eq!(all(conn), [user(2, "b", None, 2), user(3, "a", None, 3)]);
}

#[test]
fn insert_from_select() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let titles =
        users::table.filter(users::age.gt(29)).order(users::id).select((users::id, users::name));
    let inserted =
        titles.insert_into(posts::table).into_columns((posts::user_id, posts::title)).execute(conn);
    assert_eq!(inserted, Ok(2));
    let new: Vec<(i32, i32, String, i32)> =
        posts::table.filter(posts::id.gt(3)).order(posts::id).load(conn).unwrap();
    assert_eq!(new, [(4, 1, "Sean".to_owned(), 0), (5, 3, "Ada".to_owned(), 0)]);
}

#[test]
fn insert_from_select_of_nothing() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let none = users::table.filter(users::age.gt(99)).select((users::id, users::name));
    assert_eq!(
        none.insert_into(posts::table).into_columns((posts::user_id, posts::title)).execute(conn),
        Ok(0)
    );
}

#[test]
fn insert_from_select_returns_inserted_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let titles = users::table.order(users::id).select((users::id, users::name));
    let ids: Vec<i32> = diesel::insert_into(posts::table)
        .values(titles)
        .into_columns((posts::user_id, posts::title))
        .returning(posts::id)
        .get_results(conn)
        .unwrap();
    assert_eq!(ids, [4, 5, 6]);
}

#[test]
fn an_expression_as_a_value() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let oldest = users::table.select(diesel::dsl::max(users::age).assume_not_null()).single_value();
    let name = diesel::dsl::sql::<diesel::sql_types::Text>("upper('new')");
    let values = (users::name.eq(name), users::age.eq(oldest.assume_not_null()));
    assert_eq!(diesel::insert_into(users::table).values(values).execute(conn), Ok(1));
    assert_eq!(all(conn).last(), Some(&user(4, "NEW", None, 36)));
}

#[test]
fn ten_thousand_rows_in_one_statement() {
    let conn = &mut *fresh_with(BLOG);
    let names: Vec<String> = (0..10_000).map(|i| format!("user {i}")).collect();
    let rows: Vec<_> = (0..).zip(&names).map(|(age, name)| Named { name, age }).collect();
    assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(10_000));
    let last: User = users::table.order(users::id.desc()).first(conn).unwrap();
    assert_eq!(last, user(10_000, "user 9999", None, 9_999));
    assert_eq!(users::table.count().get_result::<i64>(conn), Ok(10_000));
}

#[test]
fn ten_thousand_rows_come_back_in_the_order_they_went_in() {
    let conn = &mut *fresh_with(BLOG);
    let returned: Vec<User> = diesel::sql_query(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
         INSERT INTO users (name, age) SELECT 'user ' || i, -i FROM n RETURNING *",
    )
    .get_results(conn)
    .unwrap();
    let expected: Vec<User> =
        (1..=10_000).map(|i| user(i, &format!("user {i}"), None, -i)).collect();
    assert!(returned == expected, "{} rows, the last is {:?}", returned.len(), returned.last());
}

#[test]
fn a_thousand_rows_with_defaults() {
    let conn = &mut *fresh_with(BLOG);
    let names: Vec<String> = (0..1_000).map(|i| format!("user {i}")).collect();
    let row = |(i, name)| Sparse { name, hair: None, age: (i % 2 == 0).then_some(i) };
    let rows: Vec<_> = (0..).zip(names.iter().map(String::as_str)).map(row).collect();
    assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(1_000));
    let sum: Option<i64> =
        users::table.select(diesel::dsl::sum(users::age)).get_result(conn).unwrap();
    assert_eq!(sum, Some((0..1_000).step_by(2).sum::<i64>() + 500 * 18));
}
