//! UPDATE.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, User, everybody, posts, user, users};

fn ages(conn: &mut Conn) -> Vec<i32> {
    users::table.order(users::id).select(users::age).load(conn).unwrap()
}

#[test]
fn every_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::update(users::table).set(users::age.eq(1)).execute(conn), Ok(3));
    assert_eq!(ages(conn), [1, 1, 1]);
}

#[test]
fn filtered_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let update =
        diesel::update(users::table.filter(users::age.ge(30))).set(users::age.eq(users::age + 1));
    assert_eq!(update.execute(conn), Ok(2));
    assert_eq!(ages(conn), [31, 28, 37]);
}

#[test]
fn no_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::update(users::table.find(99)).set(users::age.eq(1)).execute(conn), Ok(0));
    assert_eq!(ages(conn), [30, 28, 36]);
}

/// SQLite counts the rows that matched, changed or not.
#[test]
fn rows_that_stay_the_same_count() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::update(users::table).set(users::age.eq(users::age)).execute(conn), Ok(3));
}

#[test]
fn several_columns_and_null() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let set = (users::name.eq("Shawn"), users::hair.eq(None::<String>));
    assert_eq!(diesel::update(users::table.find(1)).set(set).execute(conn), Ok(1));
    assert_eq!(users::table.find(1).get_result::<User>(conn), Ok(user(1, "Shawn", None, 30)));
}

#[test]
fn a_changeset() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let changed = user(2, "Tessa", Some("red"), 29);
    assert_eq!(diesel::update(&changed).set(&changed).execute(conn), Ok(1));
    assert_eq!(users::table.find(2).get_result::<User>(conn), Ok(changed));
}

#[derive(AsChangeset)]
#[diesel(table_name = users)]
struct Patch {
    name: Option<String>,
    hair: Option<Option<String>>,
    age: Option<i32>,
}

#[test]
fn a_changeset_skips_none() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let patch = Patch { name: None, hair: Some(None), age: Some(31) };
    assert_eq!(diesel::update(users::table.find(1)).set(&patch).execute(conn), Ok(1));
    assert_eq!(users::table.find(1).get_result::<User>(conn), Ok(user(1, "Sean", None, 31)));
}

#[test]
fn a_changeset_without_changes_is_an_error() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let nothing = Patch { name: None, hair: None, age: None };
    let error = diesel::update(users::table.find(1)).set(&nothing).execute(conn).unwrap_err();
    assert!(matches!(error, Error::QueryBuilderError(_)), "{error:?}");
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
}

#[test]
fn save_changes_returns_the_stored_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute(
        "CREATE TRIGGER older AFTER UPDATE ON users BEGIN UPDATE users SET age = age + 100 \
         WHERE id = new.id; END",
    )
    .unwrap();
    let saved: User = user(1, "Shawn", None, 1).save_changes(conn).unwrap();
    assert_eq!(saved, user(1, "Shawn", None, 101));
}

#[test]
fn save_changes_of_a_row_that_is_not_there() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(user(99, "Nobody", None, 1).save_changes::<User>(conn), Err(Error::NotFound));
}

#[test]
fn save_changes_that_violates_a_constraint() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = user(1, "Tess", None, 1).save_changes::<User>(conn);
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: users.name".to_owned()));
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
}

#[test]
fn returning_the_changed_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let changed: Vec<User> = diesel::update(users::table.filter(users::hair.is_not_null()))
        .set(users::hair.eq(None::<String>))
        .get_results(conn)
        .unwrap();
    assert_eq!(changed, [user(1, "Sean", None, 30), user(3, "Ada", None, 36)]);
}

#[test]
fn filtered_by_a_subselect() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let authors = posts::table.select(posts::user_id);
    let update =
        diesel::update(users::table.filter(users::id.eq_any(authors))).set(users::age.eq(0));
    assert_eq!(update.execute(conn), Ok(2));
    assert_eq!(ages(conn), [0, 0, 36]);
}

#[test]
fn a_boxed_update() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let mut update = diesel::update(users::table).set(users::age.eq(1)).into_boxed();
    update = update.filter(users::id.gt(1));
    update = update.filter(users::hair.is_null());
    assert_eq!(update.execute(conn), Ok(1));
    assert_eq!(ages(conn), [30, 1, 36]);
}

#[test]
fn a_value_from_another_table() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = diesel::sql_query(
        "UPDATE users SET age = total FROM (SELECT user_id, sum(votes) AS total \
         FROM posts GROUP BY user_id) AS p WHERE p.user_id = users.id",
    )
    .execute(conn);
    assert_eq!(updated, Ok(2));
    assert_eq!(ages(conn), [8, 1, 36]);
}
