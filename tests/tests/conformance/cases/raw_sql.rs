//! SQL as text: `sql_query`, `sql::<Type>` and parameters.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};

use super::{fresh, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, User, everybody, user, users};

#[derive(Debug, PartialEq, QueryableByName)]
struct Person {
    #[diesel(sql_type = Integer)]
    id: i32,
    #[diesel(sql_type = Text, column_name = "label")]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    hair: Option<String>,
}

fn person(id: i32, name: &str, hair: Option<&str>) -> Person {
    Person { id, name: name.to_owned(), hair: hair.map(str::to_owned) }
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[test]
fn rows_are_loaded_by_column_name() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let people = sql_query("SELECT hair, name AS label, id FROM users WHERE id < 3 ORDER BY id")
        .load::<Person>(conn);
    assert_eq!(people, Ok(vec![person(1, "Sean", Some("black")), person(2, "Tess", None)]));
}

#[test]
fn a_column_that_is_missing_is_a_deserialization_error() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let read = sql_query("SELECT id FROM users").load::<Person>(conn).unwrap_err();
    assert!(matches!(read, diesel::result::Error::DeserializationError(_)), "{read:?}");
    let written =
        sql_query("UPDATE users SET age = 1 RETURNING id").load::<Person>(conn).unwrap_err();
    assert_eq!(written.to_string(), read.to_string());
    assert_eq!(read.to_string(), "Column `label` was not present in query");
}

#[test]
fn returning_by_column_name() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let people =
        sql_query("INSERT INTO users (name) VALUES ('New') RETURNING id, name AS label, hair")
            .load::<Person>(conn);
    assert_eq!(people, Ok(vec![person(4, "New", None)]));
    let one = sql_query("DELETE FROM users WHERE id = 4 RETURNING id, name AS label, hair")
        .get_result::<Person>(conn);
    assert_eq!(one, Ok(person(4, "New", None)));
}

#[test]
fn positional_parameters() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = sql_query("UPDATE users SET age = ?, hair = ? WHERE name = ?")
        .bind::<Integer, _>(5)
        .bind::<Nullable<Text>, _>(None::<String>)
        .bind::<Text, _>("Sean")
        .execute(conn);
    assert_eq!(updated, Ok(1));
    assert_eq!(users::table.find(1).get_result::<User>(conn), Ok(user(1, "Sean", None, 5)));
}

#[test]
fn numbered_parameters_in_any_order() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = sql_query("UPDATE users SET age = ?2 WHERE id = ?1")
        .bind::<Integer, _>(3)
        .bind::<Integer, _>(77)
        .execute(conn);
    assert_eq!(updated, Ok(1));
    assert_eq!(users::table.find(3).select(users::age).get_result::<i32>(conn), Ok(77));
}

#[test]
fn named_parameters_are_bound_in_order_of_appearance() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let inserted = sql_query("INSERT INTO users (id, name, age) VALUES (:id, @name, $age)")
        .bind::<Integer, _>(9)
        .bind::<Text, _>("New")
        .bind::<Integer, _>(2)
        .execute(conn);
    assert_eq!(inserted, Ok(1));
    assert_eq!(users::table.find(9).get_result::<User>(conn), Ok(user(9, "New", None, 2)));
}

#[test]
fn a_repeated_parameter_is_bound_once() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = sql_query("UPDATE users SET age = :n, hair = 'no ' || :n WHERE id = :n")
        .bind::<Integer, _>(2);
    assert_eq!(updated.execute(conn), Ok(1));
    assert_eq!(users::table.find(2).get_result::<User>(conn), Ok(user(2, "Tess", Some("no 2"), 2)));
    let updated = sql_query("UPDATE users SET age = ?1 WHERE id IN (?1, ?2, ?1)")
        .bind::<Integer, _>(1)
        .bind::<Integer, _>(3);
    assert_eq!(updated.execute(conn), Ok(2));
}

#[test]
fn question_marks_in_strings_and_comments_are_not_parameters() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = sql_query("UPDATE users SET hair = '?' || ? /* ? */ WHERE id = 1 -- ?")
        .bind::<Text, _>("!");
    assert_eq!(updated.execute(conn), Ok(1));
    assert_eq!(
        users::table.find(1).select(users::hair).get_result(conn),
        Ok(Some("?!".to_owned()))
    );
}

/// SQLite treats parameters that are not bound as NULL.
#[test]
fn a_parameter_without_a_value_is_null() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated =
        sql_query("UPDATE users SET hair = ?2 WHERE id = ?1").bind::<Integer, _>(1).execute(conn);
    assert_eq!(updated, Ok(1));
    assert_eq!(
        users::table.find(1).select(users::hair).get_result::<Option<String>>(conn),
        Ok(None)
    );
}

#[test]
fn a_value_without_a_parameter_is_an_error() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let read = sql_query("SELECT id, name AS label, hair FROM users WHERE id = ?")
        .bind::<Integer, _>(1)
        .bind::<Integer, _>(2)
        .load::<Person>(conn);
    let written = sql_query("UPDATE users SET age = 1 WHERE id = ?")
        .bind::<Integer, _>(1)
        .bind::<Integer, _>(2)
        .execute(conn);
    let expected = ("unknown", "column index out of range".to_owned());
    assert_eq!(refused(read), expected);
    assert_eq!(refused(written), expected);
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
}

#[test]
fn fragments_in_the_query_builder() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let names: Vec<String> = users::table
        .filter(sql::<diesel::sql_types::Bool>("length(name) = ").bind::<Integer, _>(4))
        .order(sql::<Text>("name DESC"))
        .select(sql::<Text>("upper(name)"))
        .load(conn)
        .unwrap();
    assert_eq!(names, ["TESS", "SEAN"]);
}

#[test]
fn a_fragment_as_a_whole_query() {
    let conn = &mut *fresh();
    assert_eq!(
        sql::<Integer>("SELECT 40 + ").bind::<Integer, _>(2).get_result::<i32>(conn),
        Ok(42)
    );
    let pair = sql::<(Text, Nullable<Integer>)>("SELECT 'a', NULL")
        .get_result::<(String, Option<i32>)>(conn);
    assert_eq!(pair, Ok(("a".to_owned(), None)));
}

#[test]
fn a_fragment_in_an_update() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let update = diesel::update(users::table.find(1))
        .set(users::age.eq(sql::<Integer>("age * ").bind::<Integer, _>(2)));
    assert_eq!(update.execute(conn), Ok(1));
    assert_eq!(users::table.find(1).select(users::age).get_result::<i32>(conn), Ok(60));
}

#[test]
fn a_fragment_that_writes_and_returns() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let ids: Vec<i32> =
        sql::<Integer>("DELETE FROM posts WHERE votes > 2 RETURNING id").load(conn).unwrap();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_common_table_expression_that_reads() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let numbers = sql_query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) \
         SELECT n FROM n ORDER BY n DESC",
    )
    .bind::<Integer, _>(3)
    .load::<Number>(conn);
    assert_eq!(numbers, Ok(vec![Number { n: 3 }, Number { n: 2 }, Number { n: 1 }]));
}

#[test]
fn a_common_table_expression_that_inserts() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let inserted = sql_query(
        "WITH n (i) AS (VALUES (1), (2)) INSERT INTO users (name, age) \
         SELECT 'user ' || i, i FROM n",
    )
    .execute(conn);
    assert_eq!(inserted, Ok(2));
    assert_eq!(users::table.filter(users::age.lt(3)).count().get_result::<i64>(conn), Ok(2));
}

#[test]
fn a_common_table_expression_that_updates_and_deletes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let updated = sql_query(
        "WITH best AS (SELECT user_id FROM posts ORDER BY votes DESC LIMIT 1) \
         UPDATE users SET age = 0 WHERE id IN (SELECT user_id FROM best)",
    )
    .execute(conn);
    assert_eq!(updated, Ok(1));
    let deleted = sql_query(
        "WITH few AS (SELECT id FROM posts WHERE votes < 4) \
         DELETE FROM posts WHERE id IN few RETURNING id AS n",
    )
    .load::<Number>(conn);
    assert_eq!(deleted, Ok(vec![Number { n: 1 }, Number { n: 3 }]));
}

#[test]
fn comments_around_a_write_and_a_semicolon_after_it() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let sql = "/* SELECT */ -- SELECT\n  \t UPDATE users SET age = 1 WHERE id = 1 ; -- done";
    assert_eq!(sql_query(sql).execute(conn), Ok(1));
    assert_eq!(users::table.find(1).select(users::age).get_result::<i32>(conn), Ok(1));
}

/// SQLite prepares the first statement and Diesel ignores the rest.
#[test]
fn of_two_statements_in_one_query_the_first_runs() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let sql = "UPDATE users SET age = 1 WHERE id = 1; UPDATE users SET age = 2 WHERE id = 2";
    assert_eq!(sql_query(sql).execute(conn), Ok(1));
    let ages: Vec<i32> = users::table.order(users::id).select(users::age).load(conn).unwrap();
    assert_eq!(ages, [1, 28, 36]);
}

#[test]
fn identifiers_in_every_kind_of_quotes() {
    let conn = &mut *fresh_with(
        r#"CREATE TABLE "odd; name" ("se lect" INTEGER, [from] TEXT, `q"q` TEXT)"#,
    );
    let inserted =
        sql_query(r#"INSERT INTO [odd; name] (`se lect`, "from", [q"q]) VALUES (1, 'a', 'b')"#)
            .execute(conn);
    assert_eq!(inserted, Ok(1));
    let row = sql::<(Integer, Text, Text)>(r#"SELECT "se lect", [from], `q"q` FROM "odd; name""#)
        .get_result::<(i32, String, String)>(conn);
    assert_eq!(row, Ok((1, "a".to_owned(), "b".to_owned())));
}

#[test]
fn rows_of_values_explain_and_pragma_are_read() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let pairs = sql::<(Integer, Text)>("VALUES (1, 'a'), (2, 'b')").load::<(i32, String)>(conn);
    assert_eq!(pairs, Ok(vec![(1, "a".to_owned()), (2, "b".to_owned())]));
    let columns = sql::<Text>("SELECT name FROM pragma_table_info('users') ORDER BY cid")
        .load::<String>(conn);
    assert_eq!(columns, Ok(["id", "name", "hair", "age"].map(str::to_owned).to_vec()));
    let plan = sql::<(Integer, Integer, Integer, Text)>("EXPLAIN QUERY PLAN DELETE FROM users")
        .load::<(i32, i32, i32, String)>(conn)
        .unwrap();
    assert_eq!(plan[0].3, "SCAN users");
    assert_eq!(users::table.load::<User>(conn), Ok(everybody()));
}

#[test]
fn execute_of_a_read_returns_the_last_count_of_sqlite() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(sql_query("UPDATE users SET age = 1 WHERE id < 3").execute(conn), Ok(2));
    assert_eq!(sql_query("SELECT * FROM users").execute(conn), Ok(2));
    assert_eq!(sql_query("DELETE FROM posts WHERE 0").execute(conn), Ok(0));
    assert_eq!(sql_query("SELECT * FROM users").execute(conn), Ok(0));
}
