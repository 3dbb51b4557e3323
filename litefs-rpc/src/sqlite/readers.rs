//! Connections for the reads of other nodes, beside the connection that writes.

use std::sync::Arc;

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::sqlite::SqliteConnection;

use super::error::{denied, other};
use super::functions::{WRITING_FUNCTIONS, application_functions};
use super::guard::{Scope, refused_from_remote};
use super::native::Opened;
use super::query::BoundQuery;
use super::rows;
use super::sql::{SqlStatement, Verb, statements};
use super::text::begins_with_change;
use crate::executor::{Reader, Readers};
use crate::wire::{Command, Output, ServerError, Statement};

/// Opens a connection for reads. Called on several threads. Blocks.
pub type OpenReader = Arc<dyn Fn() -> diesel::ConnectionResult<Opened> + Send + Sync>;

pub(super) struct SqliteReaders {
    pub(super) open: OpenReader,
    pub(super) max_rows: usize,
}

impl Readers for SqliteReaders {
    fn only_reads(&self, work: &Command) -> bool {
        let (sql, most) = match work {
            Command::Query(statement) | Command::Execute(statement) => (&statement.sql, 1),
            Command::Script(sql) => (sql, usize::MAX),
            Command::Insert(_)
            | Command::Batch { .. }
            | Command::Transaction(_)
            | Command::Call(_) => return false,
        };
        if begins_with_change(sql) {
            return false;
        }
        let all = statements(sql);
        (1..=most).contains(&all.len()) && all.iter().all(is_read)
    }

    fn open(&self) -> Result<Box<dyn Reader>, ServerError> {
        let opened = (self.open)().map_err(|error| other(error.to_string()))?;
        let mut connection = opened.connection;
        // A statement that only looks like a read cannot write.
        connection.batch_execute("PRAGMA query_only = ON").map_err(super::from_diesel)?;
        let may_write =
            application_functions(&mut connection).map_or(true, |functions| !functions.is_empty());
        Ok(Box::new(SqliteReader { connection, max_rows: self.max_rows, may_write }))
    }
}

/// Whether the statement reads, and does not ask for a PRAGMA: the result of a PRAGMA depends on
/// the connection and on the request's settings.
fn is_read(statement: &SqlStatement<'_>) -> bool {
    statement.verb() == Verb::Read
        && !statement.asks_a_pragma()
        && !WRITING_FUNCTIONS.iter().any(|function| statement.calls(function))
}

struct SqliteReader {
    connection: SqliteConnection,
    max_rows: usize,
    /// The application has registered functions, which may write.
    may_write: bool,
}

impl Reader for SqliteReader {
    fn run(&mut self, work: &Command) -> Result<Option<Output>, ServerError> {
        match self.read(work) {
            Err(ServerError::Database(_)) if self.may_write => Ok(None),
            read => read.map(Some),
        }
    }
}

impl SqliteReader {
    fn read(&mut self, work: &Command) -> Result<Output, ServerError> {
        let scope =
            if matches!(work, Command::Script(_)) { Scope::Script } else { Scope::Autocommit };
        if let Some(why) = work.texts().find_map(|sql| refused_from_remote(sql, scope)) {
            return Err(denied(why));
        }
        match work {
            Command::Query(statement) => {
                let rows = self.connection.load(bound(statement)).map_err(super::from_diesel)?;
                Ok(Output::Rows(rows::collect(rows, self.max_rows)?))
            }
            Command::Execute(statement) => {
                self.connection
                    .execute_returning_count(&bound(statement))
                    .map_err(super::from_diesel)?;
                Ok(Output::Count(0))
            }
            Command::Script(sql) => {
                self.connection.batch_execute(sql).map_err(super::from_diesel)?;
                Ok(Output::Done)
            }
            Command::Insert(_)
            | Command::Batch { .. }
            | Command::Transaction(_)
            | Command::Call(_) => Err(denied("work that writes, on a connection for reads".into())),
        }
    }
}

fn bound(statement: &Statement) -> BoundQuery<'_> {
    BoundQuery::new(&statement.sql, &statement.params, statement.cacheable)
}
