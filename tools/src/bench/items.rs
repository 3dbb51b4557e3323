//! The table of the benches and the operations on it, the same for every kind of connection.

use std::hint::black_box;

use diesel::connection::LoadConnection;
use diesel::prelude::*;
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_examples::Problem;

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
        payload -> Text,
    }
}

/// Creates the table.
pub(super) const DDL: &str = "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT \
                              NOT NULL, payload TEXT NOT NULL)";

/// The payload of every row.
pub(super) const PAYLOAD: &str = "one hundred bytes or so of text, as a row of an application \
                                  might well have in one of its columns";

/// Reads one column of each of these rows.
pub(super) fn read<C>(conn: &mut C, ids: &[i32]) -> QueryResult<()>
where
    C: LoadConnection<Backend = Sqlite>,
{
    for id in ids {
        let name: String =
            items::table.find(black_box(*id)).select(items::name).get_result(conn)?;
        black_box(name);
    }
    Ok(())
}

/// The same with `first`, which adds `LIMIT ?`.
pub(super) fn read_first<C>(conn: &mut C, ids: &[i32]) -> QueryResult<()>
where
    C: LoadConnection<Backend = Sqlite>,
{
    for id in ids {
        let name: String = items::table.find(black_box(*id)).select(items::name).first(conn)?;
        black_box(name);
    }
    Ok(())
}

/// Reads the rows up to `last`. Returns how many there are.
pub(super) fn load<C>(conn: &mut C, last: i32) -> QueryResult<usize>
where
    C: LoadConnection<Backend = Sqlite>,
{
    let rows: Vec<(i32, String, String)> =
        items::table.filter(items::id.le(black_box(last))).load(conn)?;
    Ok(black_box(rows).len())
}

/// Inserts one row.
pub(super) fn insert<C>(conn: &mut C, name: &str, payload: &str) -> QueryResult<usize>
where
    C: Connection<Backend = Sqlite>,
{
    diesel::insert_into(items::table)
        .values((items::name.eq(name), items::payload.eq(payload)))
        .execute(conn)
}

/// Creates the table with `rows` rows.
pub(super) fn fill(conn: &mut SqliteConnection, rows: i32) -> Result<(), Problem> {
    use diesel::connection::SimpleConnection;
    conn.batch_execute(DDL)?;
    conn.transaction(|conn| {
        (0..rows).try_for_each(|id| insert(conn, &format!("item {id}"), PAYLOAD).map(drop))
    })
    .map_err(|error: diesel::result::Error| error.into())
}
