//! The remaining features of `SqliteConnection`, where it matters that there are two machines.

mod batches;
mod connection;
mod pragmas;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use litefs_diesel::{Failure, LiteFsConnection};
use litefs_tests::TestCluster;

diesel::table! { notes { id -> Integer, text -> Text, stars -> Integer, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, \
                      stars INTEGER NOT NULL DEFAULT 0)";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn texts(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<(String, i32)> {
    notes::table.select((notes::text, notes::stars)).order(notes::id).load(conn).unwrap()
}

fn note(text: &str) -> impl diesel::query_builder::QueryFragment<diesel::sqlite::Sqlite> + '_ {
    diesel::insert_into(notes::table).values(notes::text.eq(text))
}

fn denied<T: std::fmt::Debug>(result: QueryResult<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::Denied), "{error}");
    error.to_string()
}

fn integer(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
    sql: &str,
) -> i64 {
    diesel::dsl::sql::<BigInt>(&format!("SELECT {sql}")).get_result(conn).unwrap()
}

#[derive(diesel::QueryableByName)]
struct OneInteger {
    #[diesel(sql_type = Integer)]
    foreign_keys: i32,
}

fn note_into(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}
