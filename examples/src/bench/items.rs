//! The table that is read and written, and both operations, the same for every kind of connection.

use std::hint::black_box;

use diesel::connection::LoadConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
        payload -> Text,
    }
}

/// Makes the table.
pub(super) const DDL: &str =
    "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, payload TEXT NOT NULL)";

/// The payload of every row.
pub(super) const PAYLOAD: &str = "one hundred bytes or so of text, as a row of an application might well have in one of \
                                  its columns";

/// Reads one column of each of these rows.
pub(super) fn read<C>(conn: &mut C, ids: &[i32]) -> QueryResult<()>
where
    C: LoadConnection<Backend = Sqlite>,
{
    for id in ids {
        let name: String = items::table.find(black_box(*id)).select(items::name).get_result(conn)?;
        black_box(name);
    }
    Ok(())
}

/// Inserts one row.
pub(super) fn insert<C>(conn: &mut C, name: &str, payload: &str) -> QueryResult<usize>
where
    C: Connection<Backend = Sqlite>,
{
    diesel::insert_into(items::table).values((items::name.eq(name), items::payload.eq(payload))).execute(conn)
}
