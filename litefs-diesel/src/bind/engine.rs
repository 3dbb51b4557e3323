//! The private in-memory SQLite database of a connection.

use diesel::connection::Connection;
use diesel::result::{Error, QueryResult};
use diesel::sqlite::SqliteConnection;

/// SQLite's limit on parameters of one statement, <https://www.sqlite.org/limits.html>.
pub(crate) const MAX_PARAMETERS: usize = 32_766;

/// Turns the bind values of any query into plain values, and plain rows into Diesel's cursor.
/// Opened at the first forwarded statement: a connection that only reads never needs it.
#[derive(Default)]
pub(crate) struct BindEngine(Option<SqliteConnection>);

impl BindEngine {
    pub(super) fn connection(&mut self) -> QueryResult<&mut SqliteConnection> {
        if self.0.is_none() {
            let mut connection = SqliteConnection::establish(":memory:")
                .map_err(|error| Error::QueryBuilderError(Box::new(error)))?;
            connection.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
            self.0 = Some(connection);
        }
        Ok(self.0.as_mut().expect("it was opened just now"))
    }
}
