//! Aggregates and groups.

use diesel::dsl::{avg, count, count_star, max, min, sum};
use diesel::prelude::*;

use super::fresh_with;
use crate::schema::{BLOG, FULL_BLOG, posts, users};

#[test]
fn counts() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(users::table.count().get_result::<i64>(conn), Ok(3));
    assert_eq!(users::table.select(count_star()).get_result::<i64>(conn), Ok(3));
    assert_eq!(users::table.select(count(users::hair)).get_result::<i64>(conn), Ok(2));
    assert_eq!(
        posts::table.select(count(posts::user_id).aggregate_distinct()).get_result::<i64>(conn),
        Ok(2)
    );
}

#[test]
fn sums_and_extremes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row: (Option<i64>, Option<i32>, Option<i32>) = posts::table
        .select((sum(posts::votes), min(posts::votes), max(posts::votes)))
        .get_result(conn)
        .unwrap();
    assert_eq!(row, (Some(9), Some(1), Some(5)));
    assert_eq!(users::table.select(max(users::name)).get_result(conn), Ok(Some("Tess".to_owned())));
}

#[test]
fn an_average() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x DOUBLE NOT NULL); INSERT INTO t (x) \
         VALUES (1), (2)",
    );
    diesel::table! { t { id -> Integer, x -> Double, } }
    assert_eq!(t::table.select(avg(t::x)).get_result::<Option<f64>>(conn), Ok(Some(1.5)));
}

#[test]
fn aggregates_of_nothing() {
    let conn = &mut *fresh_with(BLOG);
    assert_eq!(users::table.count().get_result::<i64>(conn), Ok(0));
    assert_eq!(users::table.select(sum(users::age)).get_result::<Option<i64>>(conn), Ok(None));
    assert_eq!(users::table.select(max(users::age)).get_result::<Option<i32>>(conn), Ok(None));
}

#[test]
fn group_by() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let groups: Vec<(i32, i64, Option<i64>)> = posts::table
        .group_by(posts::user_id)
        .select((posts::user_id, count_star(), sum(posts::votes)))
        .order(posts::user_id)
        .load(conn)
        .unwrap();
    assert_eq!(groups, [(1, 2, Some(8)), (2, 1, Some(1))]);
}

#[test]
fn group_by_having() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let busy: Vec<i32> = posts::table
        .group_by(posts::user_id)
        .having(count_star().gt(1))
        .select(posts::user_id)
        .load(conn)
        .unwrap();
    assert_eq!(busy, [1]);
}

#[test]
fn group_by_over_a_join() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let groups: Vec<(String, i64)> = users::table
        .left_join(posts::table)
        .group_by((users::id, users::name))
        .select((users::name, count(posts::id.nullable())))
        .order(users::id)
        .load(conn)
        .unwrap();
    assert_eq!(groups, [("Sean".to_owned(), 2), ("Tess".to_owned(), 1), ("Ada".to_owned(), 0)]);
}

#[test]
fn an_aggregate_with_a_filter_and_distinct() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row: (i64, i64) = posts::table
        .select((
            count(posts::id).aggregate_filter(posts::votes.gt(2)),
            count(posts::user_id).aggregate_distinct(),
        ))
        .get_result(conn)
        .unwrap();
    assert_eq!(row, (2, 2));
}
