//! Many rows, inserted in one call or one by one.

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use litefs_diesel::{BatchInsertDsl, LiteFsConnection};
use litefs_examples::Problem;

use super::items::{self as table, items};

/// A row with an optional column, as applications have them. Diesel on SQLite inserts such rows one
/// by one.
#[derive(Debug, Insertable)]
#[diesel(table_name = items)]
struct NewItem {
    id: Option<i32>,
    name: String,
    payload: &'static str,
}

fn rows(count: usize) -> Vec<NewItem> {
    let row =
        |number| NewItem { id: None, name: format!("item {number}"), payload: table::PAYLOAD };
    (0..count).map(row).collect()
}

/// Fills the table up to this many rows.
pub(super) fn fill(conn: &mut LiteFsConnection, wanted: i32) -> Result<(), Problem> {
    let there: i64 = items::table.count().get_result(conn)?;
    match usize::try_from(i64::from(wanted) - there) {
        Ok(missing) if missing > 0 => Ok(at_once(conn, missing).map(drop)?),
        _ => Ok(()),
    }
}

pub(super) fn at_once(conn: &mut LiteFsConnection, count: usize) -> QueryResult<usize> {
    diesel::insert_into(items::table).values(rows(count)).execute_at_once(conn)
}

/// Inserts the rows in one call, as applications do.
pub(super) fn row_by_row(conn: &mut SqliteConnection, count: usize) -> QueryResult<usize> {
    diesel::insert_into(items::table).values(&rows(count)).execute(conn)
}
