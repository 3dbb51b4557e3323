//! ON CONFLICT.

use diesel::prelude::*;
use diesel::upsert::excluded;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, Named, User, everybody, user, users};

fn all(conn: &mut Conn) -> Vec<User> {
    users::table.order(users::id).load(conn).unwrap()
}

#[test]
fn do_nothing_counts_nothing() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row = Named { name: "Sean", age: 99 };
    assert_eq!(
        diesel::insert_into(users::table).values(&row).on_conflict_do_nothing().execute(conn),
        Ok(0)
    );
    let with_target =
        diesel::insert_into(users::table).values(&row).on_conflict(users::name).do_nothing();
    assert_eq!(with_target.execute(conn), Ok(0));
    assert_eq!(all(conn), everybody());
}

#[test]
fn do_nothing_about_one_conflict_still_fails_at_another() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row = (users::id.eq(1), users::name.eq("New"));
    let result = diesel::insert_into(users::table)
        .values(row)
        .on_conflict(users::name)
        .do_nothing()
        .execute(conn);
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: users.id".to_owned()));
}

#[test]
fn do_nothing_returns_no_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let insert = |name| {
        diesel::insert_into(users::table)
            .values((users::name.eq(name), users::age.eq(5)))
            .on_conflict(users::name)
            .do_nothing()
            .returning(users::id)
    };
    assert_eq!(insert("Sean").get_result::<i32>(conn).optional(), Ok(None));
    assert_eq!(insert("New").get_result::<i32>(conn).optional(), Ok(Some(4)));
}

#[test]
fn do_update_sets_a_value() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let upsert = diesel::insert_into(users::table)
        .values(&Named { name: "Tess", age: 50 })
        .on_conflict(users::name)
        .do_update()
        .set(users::hair.eq(Some("red")));
    assert_eq!(upsert.execute(conn), Ok(1));
    assert_eq!(all(conn)[1], user(2, "Tess", Some("red"), 28));
}

#[test]
fn do_update_sees_the_row_that_was_excluded() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row: User = diesel::insert_into(users::table)
        .values(&Named { name: "Tess", age: 50 })
        .on_conflict(users::name)
        .do_update()
        .set(users::age.eq(users::age + excluded(users::age)))
        .get_result(conn)
        .unwrap();
    assert_eq!(row, user(2, "Tess", None, 78));
}

#[test]
fn do_update_of_several_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let upsert = "INSERT INTO users (name, age) VALUES ('Sean', 1), ('New', 2), ('New', 3) \
                  ON CONFLICT (name) DO UPDATE SET age = excluded.age";
    assert_eq!(diesel::sql_query(upsert).execute(conn), Ok(3));
    let ages: Vec<(String, i32)> =
        users::table.order(users::id).select((users::name, users::age)).load(conn).unwrap();
    let expected = [("Sean", 1), ("Tess", 28), ("Ada", 36), ("New", 3)]
        .map(|(name, age)| (name.to_owned(), age));
    assert_eq!(ages, expected);
}

#[test]
fn do_update_with_a_filter_leaves_the_others_alone() {
    use diesel::query_dsl::methods::FilterDsl;
    let conn = &mut *fresh_with(FULL_BLOG);
    let upsert = |name| {
        diesel::insert_into(users::table)
            .values((users::name.eq(name), users::age.eq(99)))
            .on_conflict(users::name)
            .do_update()
            .set(users::age.eq(excluded(users::age)))
            .filter(users::age.lt(30))
    };
    assert_eq!(upsert("Sean").execute(conn), Ok(0));
    assert_eq!(upsert("Tess").execute(conn), Ok(1));
    assert_eq!(all(conn).iter().map(|user| user.age).collect::<Vec<_>>(), [30, 99, 36]);
}

#[test]
fn do_update_with_a_changeset() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let changed = user(2, "Tess", Some("blue"), 41);
    let upsert = diesel::insert_into(users::table)
        .values(&changed)
        .on_conflict(users::id)
        .do_update()
        .set(&changed);
    assert_eq!(upsert.execute(conn), Ok(1));
    assert_eq!(all(conn)[1], changed);
}
