//! Reads rows as SQLite stores them.

use diesel::result::QueryResult;
use diesel::row::{Field, Row};
use diesel::sqlite::{Sqlite, SqliteType};

use crate::wire::{RowSet, ServerError, Value};

/// One column of a row, exactly as SQLite stores it.
pub fn value<'a>(field: &impl Field<'a, Sqlite>) -> Value {
    let Some(mut value) = field.value() else { return Value::Null };
    match value.value_type() {
        None => Value::Null,
        Some(SqliteType::SmallInt | SqliteType::Integer | SqliteType::Long) => {
            Value::Integer(value.read_long())
        }
        Some(SqliteType::Float | SqliteType::Double) => Value::Real(value.read_double()),
        Some(SqliteType::Text) => Value::Text(value.read_text().to_owned()),
        // SQLite knows five storage classes; the last is the blob.
        Some(_) => Value::Blob(value.read_blob().to_vec()),
    }
}

/// Reads a cursor to its end, refusing more than `limit` bytes.
///
/// # Errors
/// What the cursor says, or [`ServerError::TooLarge`].
pub fn collect<'a, R: Row<'a, Sqlite>>(
    rows: impl Iterator<Item = QueryResult<R>>,
    limit: usize,
) -> Result<RowSet, ServerError> {
    let mut set = RowSet::default();
    let mut size = 0;
    for row in rows {
        let row = row.map_err(super::from_diesel)?;
        if set.columns.is_empty() {
            set.columns = columns(&row);
        }
        for index in 0..row.field_count() {
            let field = Row::get(&row, index).expect("the index is below the field count");
            let value = value(&field);
            size += value.size();
            set.values.push(value);
        }
        if size > limit {
            return Err(ServerError::TooLarge {
                what: "the size of the rows in bytes".into(),
                actual: size,
                limit,
            });
        }
    }
    Ok(set)
}

fn columns<'a>(row: &impl Row<'a, Sqlite>) -> Vec<String> {
    let name = |index| {
        let field = Row::get(row, index)?;
        Some(field.field_name().unwrap_or_default().to_owned())
    };
    (0..row.field_count()).map_while(name).collect()
}
