//! One suite over the public behaviour of Diesel's SQLite backend, run unchanged at four places:
//! over plain SQLite, where the expected results were observed, over the primary of a cluster, over
//! a primary whose own writes are grouped, and over a replica. A case that passes at one place and
//! fails at another shows a defect of the library, not of the case.
//!
//! `cases/mod.rs` lists the cases. Each of the four modules below says where they run, and compiles
//! all of them.

// The four modules are the same files on purpose.
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

/// Where cases run: a database of their own and a way to it.
pub trait Fixture {
    type Conn: Connection<Backend = Sqlite>;
    type Manager: ManageConnection<Connection = Self::Conn>;

    /// An empty database.
    fn open() -> Self;

    fn conn(&self) -> Self::Conn;

    fn manager(&self) -> Self::Manager;
}

/// A connection to a database of its own. It is the connection as far as a case is
/// concerned.
pub struct Fresh<F: Fixture> {
    // Dropped before the place that it belongs to.
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

/// Kind and message of a database error, in comparable form.
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
