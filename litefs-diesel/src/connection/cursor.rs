//! The cursor over the rows of a query.

use std::sync::Arc;

use diesel::connection::LoadConnection;
use diesel::result::{Error, QueryResult};
use diesel::sqlite::SqliteConnection;

use crate::node::Node;
use crate::node::diagnosis::explained;

type Rows<'conn, 'query> = <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>;
type Row<'conn, 'query> = <SqliteConnection as LoadConnection>::Row<'conn, 'query>;

/// SQLite's own cursor. Its errors say whether the mount was lost.
pub struct Cursor<'conn, 'query> {
    rows: Rows<'conn, 'query>,
    /// `None`: the rows are not read from a file on LiteFS.
    node: Option<&'conn Arc<Node>>,
}

impl<'conn, 'query> Cursor<'conn, 'query> {
    #[inline]
    pub(super) fn new(rows: Rows<'conn, 'query>, node: Option<&'conn Arc<Node>>) -> Self {
        Self { rows, node }
    }

    #[cold]
    #[inline(never)]
    fn explain(&self, error: &mut Error) {
        if let Some(node) = self.node {
            *error = explained(node, std::mem::replace(error, Error::NotFound));
        }
    }
}

impl<'conn, 'query> Iterator for Cursor<'conn, 'query> {
    type Item = QueryResult<Row<'conn, 'query>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut row = self.rows.next();
        // By reference: a row is not moved.
        if let Some(Err(error)) = &mut row {
            self.explain(error);
        }
        row
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
