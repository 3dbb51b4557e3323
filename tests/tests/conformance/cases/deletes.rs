//! DELETE.

use diesel::prelude::*;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, Post, post, posts, users};

fn titles(conn: &mut Conn) -> Vec<String> {
    posts::table.order(posts::id).select(posts::title).load(conn).unwrap()
}

#[test]
fn every_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::delete(posts::table).execute(conn), Ok(3));
    assert_eq!(diesel::delete(posts::table).execute(conn), Ok(0));
    assert!(titles(conn).is_empty());
}

#[test]
fn filtered_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::delete(posts::table.filter(posts::votes.gt(2))).execute(conn), Ok(2));
    assert_eq!(titles(conn), ["Third"]);
}

#[test]
fn one_row_by_its_key() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(diesel::delete(posts::table.find(2)).execute(conn), Ok(1));
    assert_eq!(diesel::delete(posts::table.find(2)).execute(conn), Ok(0));
    assert_eq!(titles(conn), ["First", "Third"]);
}

#[test]
fn an_identifiable_value() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let first: Post = posts::table.first(conn).unwrap();
    assert_eq!(diesel::delete(&first).execute(conn), Ok(1));
    assert_eq!(titles(conn), ["Second", "Third"]);
}

#[test]
fn returning_the_deleted_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let deleted: Vec<Post> =
        diesel::delete(posts::table.filter(posts::user_id.eq(1))).get_results(conn).unwrap();
    assert_eq!(deleted, [post(1, 1, "First", 3), post(2, 1, "Second", 5)]);
    assert_eq!(titles(conn), ["Third"]);
}

#[test]
fn filtered_by_a_subselect() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let young = users::table.filter(users::age.lt(30)).select(users::id);
    assert_eq!(
        diesel::delete(posts::table.filter(posts::user_id.eq_any(young))).execute(conn),
        Ok(1)
    );
    assert_eq!(titles(conn), ["First", "Second"]);
}

#[test]
fn a_boxed_delete() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let delete = diesel::delete(posts::table)
        .into_boxed()
        .filter(posts::votes.lt(4))
        .or_filter(posts::id.eq(2));
    assert_eq!(delete.execute(conn), Ok(3));
}

#[test]
fn a_row_with_references_cannot_be_deleted() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = diesel::delete(users::table.find(1)).execute(conn);
    assert_eq!(refused(result), ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    assert_eq!(users::table.count().get_result::<i64>(conn), Ok(3));
}

/// Rows that a cascade deletes are not in the count.
#[test]
fn a_cascade_deletes_referring_rows() {
    let conn = &mut *fresh_with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id) ON DELETE CASCADE);
         INSERT INTO p VALUES (1), (2);
         INSERT INTO c (p) VALUES (1), (1), (2);",
    );
    assert_eq!(diesel::sql_query("DELETE FROM p WHERE id = 1").execute(conn), Ok(1));
    let left: i64 = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM c")
        .get_result(conn)
        .unwrap();
    assert_eq!(left, 1);
}
