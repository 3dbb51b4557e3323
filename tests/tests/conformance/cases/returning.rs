//! RETURNING, through every method that loads rows.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use diesel::result::Error;

use super::fresh_with;
use crate::refused;
use crate::schema::{BLOG, FULL_BLOG, Named, User, everybody, posts, user, users};

#[test]
fn get_result_of_an_insert() {
    let conn = &mut *fresh_with(BLOG);
    let row: User =
        diesel::insert_into(users::table).values(users::name.eq("Sean")).get_result(conn).unwrap();
    assert_eq!(row, user(1, "Sean", None, 18));
}

#[test]
fn get_result_of_one_column() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let insert = diesel::insert_into(users::table).values(users::name.eq("New"));
    assert_eq!(insert.returning(users::id).get_result::<i32>(conn), Ok(4));
}

#[test]
fn returning_a_selectable_struct() {
    let conn = &mut *fresh_with(BLOG);
    let row = diesel::insert_into(users::table)
        .values(&Named { name: "Sean", age: 3 })
        .returning(User::as_returning())
        .get_result(conn);
    assert_eq!(row, Ok(user(1, "Sean", None, 3)));
}

#[test]
fn returning_an_expression() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let doubled: Vec<(i32, String)> = diesel::update(users::table.filter(users::id.lt(3)))
        .set(users::age.eq(users::age + 1))
        .returning((users::age * 2, users::name.concat("!")))
        .get_results(conn)
        .unwrap();
    assert_eq!(doubled, [(62, "Sean!".to_owned()), (58, "Tess!".to_owned())]);
}

#[test]
fn get_results_of_several_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let titles = posts::table.order(posts::id).select((posts::title, posts::votes));
    let returned: Vec<User> = diesel::insert_into(users::table)
        .values(titles)
        .into_columns((users::name, users::age))
        .get_results(conn)
        .unwrap();
    assert_eq!(
        returned,
        [user(4, "First", None, 3), user(5, "Second", None, 5), user(6, "Third", None, 1)]
    );
}

#[test]
fn load_of_several_rows() {
    let conn = &mut *fresh_with(BLOG);
    let rows: Vec<User> =
        diesel::sql_query("INSERT INTO users (name, age) VALUES (?, 1), (?, 2) RETURNING *")
            .bind::<diesel::sql_types::Text, _>("a")
            .bind::<diesel::sql_types::Text, _>("b")
            .load(conn)
            .unwrap();
    assert_eq!(rows, [user(1, "a", None, 1), user(2, "b", None, 2)]);
}

#[test]
fn load_iter_of_an_update() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let names = diesel::update(users::table)
        .set(users::age.eq(1))
        .returning(users::name)
        .load_iter::<String, DefaultLoadingMode>(conn)
        .unwrap()
        .collect::<QueryResult<Vec<_>>>();
    assert_eq!(names, Ok(vec!["Sean".to_owned(), "Tess".to_owned(), "Ada".to_owned()]));
    assert_eq!(users::table.select(users::age).load::<i32>(conn), Ok(vec![1, 1, 1]));
}

/// SQLite makes all changes before it returns the first row.
#[test]
fn load_iter_that_is_dropped_early_has_written_everything() {
    let conn = &mut *fresh_with(FULL_BLOG);
    {
        let mut rows = diesel::update(users::table)
            .set(users::age.eq(1))
            .returning(users::name)
            .load_iter::<String, DefaultLoadingMode>(conn)
            .unwrap();
        assert_eq!(rows.next(), Some(Ok("Sean".to_owned())));
    }
    assert_eq!(users::table.select(users::age).load::<i32>(conn), Ok(vec![1, 1, 1]));
}

#[test]
fn get_result_of_a_write_to_no_row_is_not_found() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let nobody = users::table.find(99);
    let updated = diesel::update(nobody).set(users::age.eq(1)).get_result::<User>(conn);
    assert_eq!(updated, Err(Error::NotFound));
    let deleted = diesel::delete(nobody).get_result::<User>(conn);
    assert_eq!(deleted, Err(Error::NotFound));
    assert_eq!(diesel::delete(nobody).get_results::<User>(conn), Ok(vec![]));
}

#[test]
fn get_result_of_a_write_to_many_rows_gives_the_first() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let first: String = diesel::update(users::table)
        .set(users::hair.eq(Some("red")))
        .returning(users::name)
        .get_result(conn)
        .unwrap();
    assert_eq!(first, "Sean");
    assert_eq!(users::table.filter(users::hair.eq("red")).count().get_result::<i64>(conn), Ok(3));
}

#[test]
fn a_constraint_that_fails_returns_no_rows_and_writes_none() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = diesel::sql_query("INSERT INTO users (name) VALUES ('New'), ('Sean') RETURNING *")
        .get_results::<User>(conn);
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: users.name".to_owned()));
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
}

#[test]
fn deleted_rows_are_returned_as_they_were() {
    let conn = &mut *fresh_with(FULL_BLOG);
    diesel::sql_query("DELETE FROM posts").execute(conn).unwrap();
    let deleted: Vec<User> =
        diesel::delete(users::table.filter(users::age.gt(28))).get_results(conn).unwrap();
    assert_eq!(deleted, [user(1, "Sean", Some("black"), 30), user(3, "Ada", Some("grey"), 36)]);
    assert_eq!(users::table.load::<User>(conn), Ok(vec![user(2, "Tess", None, 28)]));
}

#[test]
fn replace_into_returns_the_new_row() {
    let conn = &mut *fresh_with(BLOG);
    diesel::insert_into(users::table).values(users::name.eq("Sean")).execute(conn).unwrap();
    let row: User = diesel::replace_into(users::table)
        .values(&Named { name: "Sean", age: 2 })
        .get_result(conn)
        .unwrap();
    assert_eq!(row, user(2, "Sean", None, 2));
}

#[test]
fn returned_columns_are_found_by_name() {
    use diesel::row::{Field, NamedRow, Row};

    #[derive(Debug, PartialEq)]
    struct Shape(Vec<String>, i32);

    impl diesel::deserialize::QueryableByName<diesel::sqlite::Sqlite> for Shape {
        fn build<'a>(
            row: &impl NamedRow<'a, diesel::sqlite::Sqlite>,
        ) -> diesel::deserialize::Result<Self> {
            let names = (0..row.field_count())
                .map(|index| {
                    Row::get(row, index)
                        .and_then(|field| field.field_name().map(str::to_owned))
                        .unwrap_or_default()
                })
                .collect();
            Ok(Self(names, NamedRow::get::<diesel::sql_types::Integer, i32>(row, "n e w")?))
        }
    }

    let conn = &mut *fresh_with(FULL_BLOG);
    let sql = r#"UPDATE users SET age = 9 WHERE id = 1
                 RETURNING id, age AS "n e w", name AS "a""b", 1 + 1"#;
    let shapes: Vec<Shape> = diesel::sql_query(sql).load(conn).unwrap();
    let names = ["id", "n e w", "a\"b", "1 + 1"].map(str::to_owned).to_vec();
    assert_eq!(shapes, [Shape(names, 9)]);
}

#[test]
fn columns_with_the_same_name_keep_their_places() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let row: (i32, i32, String) =
        diesel::dsl::sql::<(
            diesel::sql_types::Integer,
            diesel::sql_types::Integer,
            diesel::sql_types::Text,
        )>("UPDATE users SET age = 9 WHERE id = 3 RETURNING id AS x, age AS x, name AS x")
        .get_result(conn)
        .unwrap();
    assert_eq!(row, (3, 9, "Ada".to_owned()));
}
