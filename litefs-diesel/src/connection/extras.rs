//! What `SqliteConnection` offers beyond Diesel's traits, apart from transactions.

use std::cmp::Ordering;
use std::sync::Arc;

use diesel::result::QueryResult;
use diesel::sqlite::SerializedDatabase;

use super::LiteFsConnection;
use super::decide::phase::Phase;
use crate::failure::Failure;

impl LiteFsConnection {
    /// Copies this node's database file into memory, as
    /// [`SqliteConnection::serialize_database_to_buffer`] does.
    ///
    /// On a replica it first waits for what this connection must see, at most `read_timeout`, and
    /// then copies the file as it is. What a transaction that is open on the primary has written is
    /// not there. The copy is of a database in WAL mode, which SQLite [loads from
    /// memory](https://www.sqlite.org/c3ref/deserialize.html) only once its bytes 18 and 19 are set
    /// to 1.
    ///
    /// [`SqliteConnection::serialize_database_to_buffer`]:
    /// diesel::SqliteConnection::serialize_database_to_buffer
    pub fn serialize_database_to_buffer(&mut self) -> SerializedDatabase {
        // During a snapshot LiteFS cannot apply, so the wait would be in vain.
        let may_wait = matches!(self.phase(), Phase::Autocommit | Phase::Pending);
        if may_wait && let Some(node) = self.remote.clustered().map(|(node, _)| Arc::clone(node)) {
            // The wait is bounded. This function cannot report that it was in vain.
            let _ = self.visibility.before_local_read(&node);
        }
        self.local.sqlite().serialize_database_to_buffer()
    }

    /// Loads a database from memory in place of the one that is open, as
    /// [`SqliteConnection::deserialize_readonly_database_from_buffer`] does.
    ///
    /// # Errors
    /// [`Failure::Denied`] on LiteFS: the connection would leave the replicated database without a
    /// sign. Load it into a connection to `:memory:`.
    ///
    /// [`SqliteConnection::deserialize_readonly_database_from_buffer`]:
    ///     diesel::SqliteConnection::deserialize_readonly_database_from_buffer
    pub fn deserialize_readonly_database_from_buffer(&mut self, data: &[u8]) -> QueryResult<()> {
        if self.remote.clustered().is_some() {
            return Err(Failure::Denied.error(
                "a connection on LiteFS cannot be pointed at a database in memory: \
                 open one to \":memory:\" for it",
            ));
        }
        self.local.sqlite().deserialize_readonly_database_from_buffer(data)
    }

    /// Registers a collation for what runs on this node's file, as
    /// [`SqliteConnection::register_collation`] does.
    ///
    /// Forwarded statements use the primary's collations. Register it in
    /// [`LiteFsBuilder::on_connection`](crate::LiteFsBuilder::on_connection), as custom functions
    /// too, and every connection of every node has it, those that execute forwarded statements
    /// included.
    ///
    /// # Errors
    /// Those of SQLite.
    ///
    /// [`SqliteConnection::register_collation`]: diesel::SqliteConnection::register_collation
    pub fn register_collation<F>(&mut self, collation_name: &str, collation: F) -> QueryResult<()>
    where
        F: Fn(&str, &str) -> Ordering + Send + 'static + std::panic::UnwindSafe,
    {
        self.local.sqlite().register_collation(collation_name, collation)
    }
}
