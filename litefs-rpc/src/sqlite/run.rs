//! Runs one command of a transaction on any connection, the same way on every node.

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::sqlite::SqliteConnection;

use super::error::{denied, from_diesel};
use super::query::BoundQuery;
use super::rows;
use crate::wire::{Command, Output, Repeated, RowSet, ServerError, Value};

/// Runs a command inside the transaction that is open on `sqlite`. Rows may take at most `max_rows`
/// bytes. Blocks.
///
/// # Errors
/// [`ServerError::Database`]: the statement was undone, as SQLite undoes it, and the transaction is
/// open unless SQLite has rolled it back. [`ServerError::TooLarge`]: what the statement changed
/// remains. [`ServerError::Denied`] for a [`Command::Transaction`] and a [`Command::Call`].
pub fn run(
    sqlite: &mut SqliteConnection,
    work: &Command,
    max_rows: usize,
) -> Result<Output, ServerError> {
    match work {
        Command::Execute(statement) => {
            let count = count(sqlite, &statement.sql, &statement.params, statement.cacheable)?;
            Ok(Output::Count(count))
        }
        Command::Query(statement) => {
            let rows =
                rows(sqlite, &statement.sql, &statement.params, statement.cacheable, max_rows)?;
            Ok(Output::Rows(rows))
        }
        Command::Insert(rows) => {
            let count = count(sqlite, &rows.unrolled(rows.times), &rows.params, false)?;
            Ok(Output::Count(count))
        }
        Command::Script(sql) => {
            sqlite.batch_execute(sql).map_err(from_diesel)?;
            Ok(Output::Done)
        }
        Command::Batch { statements, rows } => {
            sqlite.batch_execute("SAVEPOINT litefs_batch").map_err(from_diesel)?;
            let result = batch(sqlite, statements, *rows, max_rows);
            let end = match result {
                Ok(_) => "RELEASE litefs_batch",
                Err(_) => "ROLLBACK TO litefs_batch; RELEASE litefs_batch",
            };
            let ended = sqlite.batch_execute(end).map_err(from_diesel);
            result.and_then(|output| ended.map(|()| output))
        }
        Command::Transaction(_) => Err(denied("a recorded transaction within another".into())),
        Command::Call(_) => Err(denied("a procedure in a recorded transaction".into())),
    }
}

/// Runs a statement. Returns how many rows it has changed.
pub(super) fn count(
    sqlite: &mut SqliteConnection,
    sql: &str,
    params: &[Value],
    cacheable: bool,
) -> Result<u64, ServerError> {
    let query = BoundQuery::new(sql, params, cacheable);
    let count = sqlite.execute_returning_count(&query).map_err(from_diesel)?;
    Ok(count as u64)
}

/// Runs a statement. Returns its rows.
pub(super) fn rows(
    sqlite: &mut SqliteConnection,
    sql: &str,
    params: &[Value],
    cacheable: bool,
    max_rows: usize,
) -> Result<RowSet, ServerError> {
    let query = BoundQuery::new(sql, params, cacheable);
    let rows = sqlite.load(query).map_err(from_diesel)?;
    rows::collect(rows, max_rows)
}

fn batch(
    sqlite: &mut SqliteConnection,
    statements: &[Repeated],
    rows: bool,
    max_rows: usize,
) -> Result<Output, ServerError> {
    if rows {
        return batch_rows(sqlite, statements, max_rows).map(Output::Rows);
    }
    let mut counts = Vec::new();
    for repeated in statements {
        for params in repeated.runs() {
            counts.push(count(sqlite, &repeated.sql, params, repeated.cacheable)?);
        }
    }
    Ok(Output::Counts(counts))
}

/// The rows of all statements; the limit is on their sum.
pub(super) fn batch_rows(
    sqlite: &mut SqliteConnection,
    statements: &[Repeated],
    max_rows: usize,
) -> Result<RowSet, ServerError> {
    let (mut all, mut left) = (RowSet::default(), max_rows);
    for repeated in statements {
        for params in repeated.runs() {
            let mut more = rows(sqlite, &repeated.sql, params, repeated.cacheable, left)?;
            left = left.saturating_sub(more.size());
            if all.columns.is_empty() {
                all.columns = more.columns;
            }
            all.values.append(&mut more.values);
        }
    }
    Ok(all)
}
