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

#[path = "cases/mod.rs"]
mod cases;
