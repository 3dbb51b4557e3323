//! Plain SQLite on a file: the reference for every other place.

use diesel::connection::{Connection, SimpleConnection};
use diesel::r2d2::ConnectionManager;
use diesel::sqlite::SqliteConnection;
use tempfile::TempDir;

use crate::{Fixture, Fresh};

pub struct PlainSqlite(TempDir);

impl PlainSqlite {
    fn url(&self) -> String {
        self.0.path().join("app.db").to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Fixture for PlainSqlite {
    type Conn = SqliteConnection;
    type Manager = ConnectionManager<SqliteConnection>;

    fn open() -> Self {
        let fixture = Self(tempfile::tempdir().expect("a directory"));
        // The journal mode that LiteFS needs.
        fixture.conn().batch_execute("PRAGMA journal_mode = WAL").expect("WAL");
        fixture
    }

    fn conn(&self) -> SqliteConnection {
        SqliteConnection::establish(&self.url()).expect("a connection")
    }

    fn manager(&self) -> Self::Manager {
        ConnectionManager::new(self.url())
    }
}

pub type Conn = <PlainSqlite as Fixture>::Conn;

fn fresh() -> Fresh<PlainSqlite> {
    Fresh::with("")
}

fn fresh_with(script: &str) -> Fresh<PlainSqlite> {
    Fresh::with(script)
}

#[path = "cases/mod.rs"]
mod cases;
