//! The cursor over the rows of a query.

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use crate::node::Node;
use crate::node::diagnosis::explained;

type Rows<'conn, 'query> = <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>;
type Row<'conn, 'query> = <SqliteConnection as LoadConnection>::Row<'conn, 'query>;

/// SQLite's own cursor. Its errors say whether the mount was lost.
pub struct Cursor<'conn, 'query> {
    rows: Rows<'conn, 'query>,
    /// `None`: the rows are not read from a file on LiteFS.
    node: Option<&'conn Node>,
}

impl<'conn, 'query> Cursor<'conn, 'query> {
    #[inline]
    pub(super) fn new(rows: Rows<'conn, 'query>, node: Option<&'conn Node>) -> Self {
        Self { rows, node }
    }
}

impl<'conn, 'query> Iterator for Cursor<'conn, 'query> {
    type Item = QueryResult<Row<'conn, 'query>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match (self.rows.next(), self.node) {
            (Some(Err(error)), Some(node)) => Some(Err(explained(node, error))),
            (row, _) => row,
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl std::fmt::Debug for Cursor<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}
