//! One suite over the public behaviour of Diesel's SQLite backend, run unchanged at four places: on
//! plain SQLite, where the expected results were observed, on the primary of a cluster, on a
//! primary whose own writes are grouped, and on a replica. A case that passes at one place and
//! fails at another shows a defect of the library, not of the case.
//!
//! `cases/mod.rs` lists the cases. Each of the four modules below defines a place and compiles all
//! cases for it.

// The four modules include the same files on purpose.
#![allow(clippy::duplicate_mod)]

mod grouped;
mod plain;
mod primary;
mod replica;
mod schema;

use std::ops::{Deref, DerefMut};

use diesel::connection::{Connection, SimpleConnection};
use diesel::r2d2::{ManageConnection, Pool};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::sqlite::Sqlite;

/// The place of a case: a database, and how to connect to it.
pub trait Fixture {
    type Conn: Connection<Backend = Sqlite>;
    type Manager: ManageConnection<Connection = Self::Conn>;

    /// An empty database.
    fn open() -> Self;

    fn conn(&self) -> Self::Conn;

    fn manager(&self) -> Self::Manager;
}

/// A connection to a database of its own. Cases use it as the connection.
pub struct Fresh<F: Fixture> {
    // Declared before the place, so that it is dropped first.
    conn: F::Conn,
    fixture: F,
}

impl<F: Fixture> Fresh<F> {
    fn with(script: &str) -> Self {
        let fixture = F::open();
        let mut conn = fixture.conn();
        conn.batch_execute(script).expect("the schema");
        Self { conn, fixture }
    }

    /// Another connection to the same database, at the same place.
    fn another(&self) -> F::Conn {
        self.fixture.conn()
    }

    fn pool(&self, size: u32) -> Pool<F::Manager> {
        Pool::builder().max_size(size).build(self.fixture.manager()).expect("a pool")
    }
}

impl<F: Fixture> Deref for Fresh<F> {
    type Target = F::Conn;

    fn deref(&self) -> &F::Conn {
        &self.conn
    }
}

impl<F: Fixture> DerefMut for Fresh<F> {
    fn deref_mut(&mut self) -> &mut F::Conn {
        &mut self.conn
    }
}

/// Kind and message of a database error, as comparable values.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: QueryResult<T>) -> (&'static str, String) {
    match result {
        Err(Error::DatabaseError(kind, information)) => {
            let kind = match kind {
                DatabaseErrorKind::UniqueViolation => "unique",
                DatabaseErrorKind::ForeignKeyViolation => "foreign key",
                DatabaseErrorKind::NotNullViolation => "not null",
                DatabaseErrorKind::CheckViolation => "check",
                DatabaseErrorKind::Unknown => "unknown",
                _ => "a kind that SQLite does not have",
            };
            (kind, information.message().to_owned())
        }
        other => panic!("expected a database error, not {other:?}"),
    }
}
