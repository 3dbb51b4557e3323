//! Reads that other nodes send here, beside the connection that writes.

use std::sync::Arc;

use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::sqlite::SqliteConnection;

use super::executor::{denied, other};
use super::guard::{Place, refused_from_afar};
use super::query::BoundQuery;
use super::rows;
use super::sql::{Verb, statements};
use crate::executor::{Reader, Readers};
use crate::wire::{Refusal, RowSet, Statement, Work};

/// Opens a connection for reads; called for each of them, on several threads. Blocks.
pub type OpenReader = Arc<dyn Fn() -> diesel::ConnectionResult<SqliteConnection> + Send + Sync>;

pub(super) struct SqliteReaders {
    pub(super) open: OpenReader,
    pub(super) max_rows: usize,
}

impl Readers for SqliteReaders {
    fn read<'a>(&self, work: &'a Work) -> Option<&'a Statement> {
        let Work::Query(statement) = work else { return None };
        match statements(&statement.sql).as_slice() {
            [one] if one.verb() == Verb::Read => Some(statement),
            _ => None,
        }
    }

    fn open(&self) -> Result<Box<dyn Reader>, Refusal> {
        let mut connection = (self.open)().map_err(|error| other(error.to_string()))?;
        // What is taken for a read cannot write, whatever it is.
        connection.batch_execute("PRAGMA query_only = ON").map_err(super::from_diesel)?;
        Ok(Box::new(SqliteReader { connection, max_rows: self.max_rows }))
    }
}

struct SqliteReader {
    connection: SqliteConnection,
    max_rows: usize,
}

impl Reader for SqliteReader {
    fn rows(&mut self, statement: &Statement) -> Result<RowSet, Refusal> {
        if let Some(why) = refused_from_afar(&statement.sql, Place::Alone) {
            return Err(denied(why));
        }
        let query = BoundQuery::new(&statement.sql, &statement.params, statement.cacheable);
        let rows = self.connection.load(query).map_err(super::from_diesel)?;
        rows::collect(rows, self.max_rows)
    }
}
