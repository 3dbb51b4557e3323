//! Rows as they are read.

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::failure::explained;
use crate::litefs::Shared;

type Rows<'conn, 'query> = <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>;
type Row<'conn, 'query> = <SqliteConnection as LoadConnection>::Row<'conn, 'query>;

/// SQLite's own cursor, whose errors say what became of the mount.
pub struct Cursor<'conn, 'query> {
    rows: Rows<'conn, 'query>,
    /// `None`: the rows are not read from a file on LiteFS.
    shared: Option<&'conn Shared>,
}

impl<'conn, 'query> Cursor<'conn, 'query> {
    #[inline]
    pub(super) fn new(rows: Rows<'conn, 'query>, shared: Option<&'conn Shared>) -> Self {
        Self { rows, shared }
    }
}

impl<'conn, 'query> Iterator for Cursor<'conn, 'query> {
    type Item = QueryResult<Row<'conn, 'query>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match (self.rows.next(), self.shared) {
            (Some(Err(error)), Some(shared)) => Some(Err(explained(shared, error))),
            (row, _) => row,
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}
