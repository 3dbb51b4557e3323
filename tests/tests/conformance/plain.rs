//! Plain SQLite on a file of its own: what every other place is measured by.

use diesel::connection::{Connection, SimpleConnection};
use diesel::r2d2::ConnectionManager;
use diesel::sqlite::SqliteConnection;
use tempfile::TempDir;

use crate::{Fresh, Place};

pub struct Here(TempDir);

impl Here {
    fn url(&self) -> String {
        self.0.path().join("app.db").to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Place for Here {
    type Conn = SqliteConnection;
    type Manager = ConnectionManager<SqliteConnection>;

    fn open() -> Self {
        let here = Self(tempfile::tempdir().expect("a directory"));
        // As LiteFS wants it.
        here.conn().batch_execute("PRAGMA journal_mode = WAL").expect("WAL");
        here
    }

    fn conn(&self) -> SqliteConnection {
        SqliteConnection::establish(&self.url()).expect("a connection")
    }

    fn manager(&self) -> Self::Manager {
        ConnectionManager::new(self.url())
    }
}

pub type Conn = <Here as Place>::Conn;

fn fresh() -> Fresh<Here> {
    Fresh::with("")
}

fn fresh_with(script: &str) -> Fresh<Here> {
    Fresh::with(script)
}

#[path = "cases/aggregates.rs"]
mod aggregates;
#[path = "cases/attached.rs"]
mod attached;
#[path = "cases/backups.rs"]
mod backups;
#[path = "cases/bulk.rs"]
mod bulk;
#[path = "cases/connections.rs"]
mod connections;
#[path = "cases/deletes.rs"]
mod deletes;
#[path = "cases/errors.rs"]
mod errors;
#[path = "cases/inserts.rs"]
mod inserts;
#[path = "cases/instrumentation.rs"]
mod instrumentation;
#[path = "cases/migrations.rs"]
mod migrations;
#[path = "cases/nested_transactions.rs"]
mod nested_transactions;
#[path = "cases/queries.rs"]
mod queries;
#[path = "cases/raw_sql.rs"]
mod raw_sql;
#[path = "cases/returning.rs"]
mod returning;
#[path = "cases/schema_objects.rs"]
mod schema_objects;
#[path = "cases/scripts.rs"]
mod scripts;
#[path = "cases/session.rs"]
mod session;
#[path = "cases/sqlite_features.rs"]
mod sqlite_features;
#[path = "cases/temporary.rs"]
mod temporary;
#[path = "cases/transactions.rs"]
mod transactions;
#[path = "cases/types.rs"]
mod types;
#[path = "cases/updates.rs"]
mod updates;
#[path = "cases/upserts.rs"]
mod upserts;
