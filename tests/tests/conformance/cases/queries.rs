//! Reads through the query builder.

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::result::Error;

use super::fresh_with;
use crate::schema::{BLOG, FULL_BLOG, Post, User, everybody, post, posts, user, users};

#[test]
fn load_first_find_and_get_result() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
    assert_eq!(users::table.order(users::age).first::<User>(conn), Ok(user(2, "Tess", None, 28)));
    assert_eq!(users::table.find(3).get_result::<User>(conn), Ok(user(3, "Ada", Some("grey"), 36)));
}

#[test]
fn nothing_found_is_not_found() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(users::table.find(99).get_result::<User>(conn), Err(Error::NotFound));
    assert_eq!(users::table.find(99).get_result::<User>(conn).optional(), Ok(None));
    assert_eq!(users::table.find(99).load::<User>(conn), Ok(vec![]));
}

#[test]
fn load_iter_hands_out_row_after_row() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let mut names = users::table
        .order(users::id)
        .select(users::name)
        .load_iter::<String, DefaultLoadingMode>(conn)
        .unwrap();
    assert_eq!(names.next(), Some(Ok("Sean".to_owned())));
    assert_eq!(names.next(), Some(Ok("Tess".to_owned())));
    assert_eq!(names.next(), Some(Ok("Ada".to_owned())));
    assert_eq!(names.next(), None);
}

#[test]
fn an_inner_join() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows: Vec<(String, String)> = users::table
        .inner_join(posts::table)
        .select((users::name, posts::title))
        .order(posts::id)
        .load(conn)
        .unwrap();
    let expected = [("Sean", "First"), ("Sean", "Second"), ("Tess", "Third")];
    assert_eq!(rows, expected.map(|(name, title)| (name.to_owned(), title.to_owned())));
}

#[test]
fn a_left_join() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows: Vec<(User, Option<Post>)> = users::table
        .left_join(posts::table)
        .filter(users::id.ne(1))
        .order(users::id)
        .load(conn)
        .unwrap();
    let expected = [
        (user(2, "Tess", None, 28), Some(post(3, 2, "Third", 1))),
        (user(3, "Ada", Some("grey"), 36), None),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_table_joined_with_itself() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let (younger, older) = diesel::alias!(users as younger, users as older);
    let pairs: Vec<(String, String)> = younger
        .inner_join(older.on(younger.field(users::age).lt(older.field(users::age))))
        .select((younger.field(users::name), older.field(users::name)))
        .order((younger.field(users::name), older.field(users::name)))
        .load(conn)
        .unwrap();
    let expected = [("Sean", "Ada"), ("Tess", "Ada"), ("Tess", "Sean")];
    assert_eq!(pairs, expected.map(|(younger, older)| (younger.to_owned(), older.to_owned())));
}

#[test]
fn a_join_on_a_condition_of_the_users_own() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows: Vec<(i32, i32)> = users::table
        .inner_join(posts::table.on(posts::votes.eq(users::id)))
        .select((users::id, posts::id))
        .order((users::id, posts::id))
        .load(conn)
        .unwrap();
    assert_eq!(rows, [(1, 3), (3, 1)]);
}

#[test]
fn associations_are_grouped_by_their_parents() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let people = everybody();
    let grouped = Post::belonging_to(&people)
        .order(posts::id)
        .load::<Post>(conn)
        .unwrap()
        .grouped_by(&people);
    let expected = [
        vec![post(1, 1, "First", 3), post(2, 1, "Second", 5)],
        vec![post(3, 2, "Third", 1)],
        vec![],
    ];
    assert_eq!(grouped, expected);
}

#[test]
fn a_subselect_as_a_value() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let oldest = users::table.select(diesel::dsl::max(users::age)).single_value();
    let titles =
        posts::table.filter((posts::votes * 12).nullable().eq(oldest)).select(posts::title);
    assert_eq!(titles.load::<String>(conn), Ok(vec!["First".to_owned()]));
}

#[test]
fn a_subselect_as_a_list() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let authors = posts::table.select(posts::user_id);
    let silent: Vec<String> =
        users::table.filter(users::id.ne_all(authors)).select(users::name).load(conn).unwrap();
    assert_eq!(silent, ["Ada"]);
}

#[test]
fn exists_with_a_correlated_subselect() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let popular = posts::table.filter(posts::user_id.eq(users::id).and(posts::votes.gt(2)));
    let names: Vec<String> =
        users::table.filter(exists(popular)).select(users::name).load(conn).unwrap();
    assert_eq!(names, ["Sean"]);
    let nobody = users::table.filter(users::age.gt(99));
    assert_eq!(diesel::select(exists(nobody)).get_result::<bool>(conn), Ok(false));
}

#[test]
fn a_list_of_values() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let ids = |wanted: Vec<i32>| {
        users::table.filter(users::id.eq_any(wanted)).select(users::id).order(users::id)
    };
    assert_eq!(ids(vec![3, 1, 99]).load::<i32>(conn), Ok(vec![1, 3]));
    assert_eq!(ids(vec![]).load::<i32>(conn), Ok(vec![]));
}

#[test]
fn order_by_several_columns_and_nulls() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let names = users::table
        .order((users::hair.asc(), users::name.desc()))
        .select(users::name)
        .load::<String>(conn);
    assert_eq!(names, Ok(vec!["Tess".to_owned(), "Sean".to_owned(), "Ada".to_owned()]));
    let ids = users::table
        .order(users::age.desc())
        .then_order_by(users::id)
        .select(users::id)
        .load::<i32>(conn);
    assert_eq!(ids, Ok(vec![3, 1, 2]));
}

#[test]
fn limit_and_offset() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let ids = users::table.order(users::id).select(users::id);
    assert_eq!(ids.limit(2).load::<i32>(conn), Ok(vec![1, 2]));
    assert_eq!(ids.limit(2).offset(2).load::<i32>(conn), Ok(vec![3]));
    assert_eq!(ids.offset(1).load::<i32>(conn), Ok(vec![2, 3]));
    assert_eq!(ids.limit(0).load::<i32>(conn), Ok(vec![]));
    assert_eq!(ids.limit(-1).load::<i32>(conn), Ok(vec![1, 2, 3]));
}

#[test]
fn distinct() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let authors =
        posts::table.select(posts::user_id).distinct().order(posts::user_id).load::<i32>(conn);
    assert_eq!(authors, Ok(vec![1, 2]));
}

#[test]
fn boxed_queries_grow_at_run_time() {
    let conn = &mut *fresh_with(FULL_BLOG);
    for (with_hair, older_than, expected) in [
        (false, None, vec![1, 2, 3]),
        (true, None, vec![1, 3]),
        (true, Some(30), vec![3]),
        (false, Some(99), vec![]),
    ] {
        let mut query = users::table.select(users::id).order(users::id).into_boxed();
        if with_hair {
            query = query.filter(users::hair.is_not_null());
        }
        if let Some(age) = older_than {
            query = query.filter(users::age.gt(age));
        }
        assert_eq!(query.load::<i32>(conn), Ok(expected));
    }
}

#[test]
fn like_escape_between_and_is_null() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("INSERT INTO users (id, name) VALUES (4, '50%')").unwrap();
    let ids = users::table.select(users::id).order(users::id);
    assert_eq!(ids.filter(users::name.like("%s%")).load::<i32>(conn), Ok(vec![1, 2]));
    assert_eq!(ids.filter(users::name.like("50!%").escape('!')).load::<i32>(conn), Ok(vec![4]));
    assert_eq!(ids.filter(users::age.between(28, 30)).load::<i32>(conn), Ok(vec![1, 2]));
    assert_eq!(ids.filter(users::hair.is_null()).load::<i32>(conn), Ok(vec![2, 4]));
    assert_eq!(ids.filter(users::hair.is_not("black")).load::<i32>(conn), Ok(vec![2, 3, 4]));
}

#[test]
fn arithmetic_and_concatenation() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row: (i32, i32, String) = users::table
        .find(1)
        .select((users::age * 2 + 1, users::age / users::id, users::name.concat("!")))
        .get_result(conn)
        .unwrap();
    assert_eq!(row, (61, 30, "Sean!".to_owned()));
}

#[test]
fn case_when() {
    use diesel::dsl::case_when;
    let conn = &mut *fresh_with(FULL_BLOG);
    let ages: Vec<String> = users::table
        .order(users::id)
        .select(
            case_when::<_, _, diesel::sql_types::Text>(users::age.gt(35), "old")
                .when(users::age.lt(29), "young")
                .otherwise("grown"),
        )
        .load(conn)
        .unwrap();
    assert_eq!(ages, ["grown", "young", "old"]);
}

#[test]
fn union_and_except() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let authors = || posts::table.select(posts::user_id);
    let mut all: Vec<i32> = users::table.select(users::id).union(authors()).load(conn).unwrap();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    assert_eq!(users::table.select(users::id).except(authors()).load::<i32>(conn), Ok(vec![3]));
    let many: Vec<i32> = users::table.select(users::id).union_all(authors()).load(conn).unwrap();
    assert_eq!(many.len(), 6);
}

#[test]
fn a_selectable_struct_across_a_join() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows: Vec<(Post, User)> = posts::table
        .inner_join(users::table)
        .filter(posts::id.eq(3))
        .select((Post::as_select(), User::as_select()))
        .load(conn)
        .unwrap();
    assert_eq!(rows, [(post(3, 2, "Third", 1), user(2, "Tess", None, 28))]);
}

#[test]
fn ten_thousand_rows_are_read() {
    let conn = &mut *fresh_with(BLOG);
    diesel::sql_query(
        "INSERT INTO users (name) WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 \
         FROM n WHERE i < 10000) SELECT 'user ' || i FROM n",
    )
    .execute(conn)
    .unwrap();
    let ids: Vec<i32> = users::table.order(users::id).select(users::id).load(conn).unwrap();
    assert_eq!(ids, (1..=10_000).collect::<Vec<_>>());
}

#[test]
fn the_same_query_sees_each_change() {
    let conn = &mut *fresh_with(BLOG);
    for expected in 0..5_i64 {
        assert_eq!(users::table.count().get_result::<i64>(conn), Ok(expected));
        diesel::insert_into(users::table)
            .values(users::name.eq(expected.to_string()))
            .execute(conn)
            .unwrap();
    }
}
