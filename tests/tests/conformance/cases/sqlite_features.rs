//! Extensions of SQLite: full text search, JSON, window functions, dates.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};

use super::{fresh, fresh_with};
use crate::schema::FULL_BLOG;

#[test]
fn full_text_search() {
    let conn = &mut *fresh_with("CREATE VIRTUAL TABLE docs USING fts5 (title, body)");
    let inserted = sql_query("INSERT INTO docs VALUES (?, ?), ('cats', 'about a fox?')")
        .bind::<Text, _>("foxes")
        .bind::<Text, _>("the quick brown fox")
        .execute(conn);
    assert_eq!(inserted, Ok(2));
    let found = |conn: &mut _, what: &str| {
        sql::<Text>("SELECT title FROM docs WHERE docs MATCH ")
            .bind::<Text, _>(what.to_owned())
            .sql(" ORDER BY title")
            .load::<String>(conn)
    };
    assert_eq!(found(conn, "fox"), Ok(vec!["cats".to_owned(), "foxes".to_owned()]));
    assert_eq!(found(conn, "quick NOT about"), Ok(vec!["foxes".to_owned()]));
    assert_eq!(sql_query("DELETE FROM docs WHERE docs MATCH 'quick'").execute(conn), Ok(1));
    assert_eq!(found(conn, "fox"), Ok(vec!["cats".to_owned()]));
}

#[test]
fn full_text_search_kept_up_to_date_by_a_trigger() {
    let conn = &mut *fresh_with(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);
         CREATE VIRTUAL TABLE search USING fts5 (text, content = 'notes', content_rowid = 'id');
         CREATE TRIGGER added AFTER INSERT ON notes BEGIN
             INSERT INTO search (rowid, text) VALUES (new.id, new.text);
         END",
    );
    assert_eq!(
        sql_query("INSERT INTO notes (text) VALUES ('one two'), ('two three')").execute(conn),
        Ok(2)
    );
    let found = sql::<Integer>("SELECT rowid FROM search WHERE search MATCH 'two' ORDER BY rowid")
        .load::<i32>(conn);
    assert_eq!(found, Ok(vec![1, 2]));
}

#[test]
fn spatial_search() {
    let conn = &mut *fresh_with("CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1, y0, y1)");
    assert_eq!(
        sql_query("INSERT INTO boxes VALUES (1, 0, 1, 0, 1), (2, 5, 6, 5, 6)").execute(conn),
        Ok(2)
    );
    assert_eq!(sql::<Integer>("SELECT id FROM boxes WHERE x0 >= 2").load::<i32>(conn), Ok(vec![2]));
}

#[test]
fn json_functions() {
    let conn = &mut *fresh_with("CREATE TABLE docs (id INTEGER PRIMARY KEY, doc TEXT NOT NULL)");
    let doc = r#"{"name":"Sean","tags":["a","b"],"age":30}"#;
    sql_query("INSERT INTO docs (doc) VALUES (json(?))")
        .bind::<Text, _>(doc)
        .execute(conn)
        .unwrap();
    let name = sql::<Text>("SELECT doc ->> '$.name' FROM docs").get_result::<String>(conn);
    assert_eq!(name, Ok("Sean".to_owned()));
    let tags = sql::<Text>("SELECT value FROM docs, json_each(doc, '$.tags') ORDER BY key")
        .load::<String>(conn);
    assert_eq!(tags, Ok(vec!["a".to_owned(), "b".to_owned()]));
    let returned =
        sql::<Text>("UPDATE docs SET doc = json_set(doc, '$.age', 31) RETURNING doc -> '$.age'")
            .get_result::<String>(conn);
    assert_eq!(returned, Ok("31".to_owned()));
    let malformed = sql_query("UPDATE docs SET doc = json('{')").execute(conn);
    assert_eq!(crate::refused(malformed), ("unknown", "malformed JSON".to_owned()));
}

#[test]
fn json_through_the_query_builder() {
    use diesel::dsl::{json_array_length, json_valid};
    use diesel::sql_types::Json;
    let conn = &mut *fresh_with(FULL_BLOG);
    let array = crate::schema::posts::table
        .select(sql::<Text>("json_group_array(votes)"))
        .get_result::<String>(conn);
    assert_eq!(array, Ok("[3,5,1]".to_owned()));
    let row = diesel::select((
        json_valid(sql::<Json>("'[1,2]'")),
        json_array_length(sql::<Json>("'[1,2]'")),
    ))
    .get_result::<(bool, i32)>(conn);
    assert_eq!(row, Ok((true, 2)));
}

#[test]
fn binary_json_is_a_blob() {
    let conn = &mut *fresh();
    let blob =
        sql::<diesel::sql_types::Binary>("SELECT jsonb('[1,2]')").get_result::<Vec<u8>>(conn);
    assert_eq!(blob, Ok(vec![0x4b, 0x13, b'1', 0x13, b'2']));
}

#[test]
fn window_functions() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let rows = sql::<(Integer, BigInt, Nullable<Integer>)>(
        "SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY votes DESC), lag(votes) OVER \
         (ORDER BY id) FROM posts ORDER BY id",
    )
    .load::<(i32, i64, Option<i32>)>(conn);
    assert_eq!(rows, Ok(vec![(1, 2, None), (2, 1, Some(3)), (3, 1, Some(5))]));
}

#[test]
fn window_functions_of_the_query_builder() {
    use crate::schema::posts;
    use diesel::dsl::sum;
    let conn = &mut *fresh_with(FULL_BLOG);
    let running: Vec<Option<i64>> = posts::table
        .order(posts::id)
        .select(sum(posts::votes).over().window_order(posts::id))
        .load(conn)
        .unwrap();
    assert_eq!(running, [Some(3), Some(8), Some(9)]);
}

#[test]
fn dates_and_times_of_sqlite() {
    let conn = &mut *fresh_with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    );
    let date = sql::<Text>("SELECT date('2024-01-31', '+1 month')").get_result::<String>(conn);
    assert_eq!(date, Ok("2024-03-02".to_owned()));
    // Both are evaluated on the node that executes the write: one statement has one time.
    let same = sql::<Integer>("INSERT INTO t DEFAULT VALUES RETURNING at = datetime('now')")
        .get_result::<i32>(conn);
    assert_eq!(same, Ok(1));
}

#[test]
fn random_values_are_stored_as_they_were_returned() {
    let conn = &mut *fresh_with("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, b BLOB)");
    let sql_text = "INSERT INTO t (n, b) VALUES (random(), randomblob(16)) RETURNING n, b";
    let returned = sql::<(BigInt, diesel::sql_types::Binary)>(sql_text)
        .get_result::<(i64, Vec<u8>)>(conn)
        .unwrap();
    let stored = sql::<(BigInt, diesel::sql_types::Binary)>("SELECT n, b FROM t").get_result(conn);
    assert_eq!(stored, Ok(returned));
}
