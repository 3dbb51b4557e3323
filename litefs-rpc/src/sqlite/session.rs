//! What SQLite reports about one connection: its session functions and its PRAGMAs.

use diesel::connection::LoadConnection;
use diesel::result::{Error, QueryResult};
use diesel::row::Row;
use diesel::sqlite::SqliteConnection;

use super::query::BoundQuery;
use super::rows;
use crate::wire::{Settings, Value};

/// Reads `last_insert_rowid()`, `changes()` and `total_changes()`, in this order. Blocks.
///
/// # Errors
/// SQLite's error.
pub fn session_functions(connection: &mut SqliteConnection) -> QueryResult<[i64; 3]> {
    integers(connection, "SELECT last_insert_rowid(), changes(), total_changes()")
}

/// Reads the PRAGMAs that belong to a connection. Their defaults depend on how SQLite was built.
/// Blocks.
///
/// # Errors
/// SQLite's error.
pub fn read_settings(connection: &mut SqliteConnection) -> QueryResult<Settings> {
    let mut read = |name: &str| -> QueryResult<bool> {
        let [on] = integers(connection, &format!("PRAGMA {name}"))?;
        Ok(on != 0)
    };
    Ok(Settings {
        foreign_keys: read("foreign_keys")?,
        defer_foreign_keys: read("defer_foreign_keys")?,
        recursive_triggers: read("recursive_triggers")?,
        ignore_check_constraints: read("ignore_check_constraints")?,
        legacy_alter_table: read("legacy_alter_table")?,
    })
}

/// The first `N` columns of the first row.
pub(super) fn integers<const N: usize>(
    connection: &mut SqliteConnection,
    sql: &str,
) -> QueryResult<[i64; N]> {
    integers_of(connection, BoundQuery::new(sql, &[], true))
}

/// The first `N` columns of the first row of a query with parameters.
pub(super) fn integers_of<const N: usize>(
    connection: &mut SqliteConnection,
    query: BoundQuery<'_>,
) -> QueryResult<[i64; N]> {
    let mut rows = connection.load(query)?;
    let row = rows.next().ok_or(Error::NotFound)??;
    Ok(std::array::from_fn(|index| match Row::get(&row, index).map(|field| rows::value(&field)) {
        Some(Value::Integer(integer)) => integer,
        _ => 0,
    }))
}
