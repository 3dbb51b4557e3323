//! `diesel_migrations`, with a migration source in memory.

use std::fmt;

use diesel::connection::BoxableConnection;
use diesel::dsl::sql;
use diesel::migration::{
    self, Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion,
};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;
use diesel_migrations::MigrationHarness;

use super::{Conn, fresh};

/// Version, up, down, and whether it runs in a transaction.
#[derive(Clone, Copy)]
struct Step(&'static str, &'static str, &'static str, bool);

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl MigrationName for Step {
    fn version(&self) -> MigrationVersion<'_> {
        self.0.into()
    }
}

impl MigrationMetadata for Step {
    fn run_in_transaction(&self) -> bool {
        self.3
    }
}

impl Migration<Sqlite> for Step {
    fn run(&self, conn: &mut dyn BoxableConnection<Sqlite>) -> migration::Result<()> {
        Ok(conn.batch_execute(self.1)?)
    }

    fn revert(&self, conn: &mut dyn BoxableConnection<Sqlite>) -> migration::Result<()> {
        Ok(conn.batch_execute(self.2)?)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        self
    }

    fn name(&self) -> &dyn MigrationName {
        self
    }
}

#[derive(Clone)]
struct Steps(Vec<Step>);

impl MigrationSource<Sqlite> for Steps {
    fn migrations(&self) -> migration::Result<Vec<Box<dyn Migration<Sqlite>>>> {
        Ok(self.0.iter().map(|step| Box::new(*step) as Box<dyn Migration<Sqlite>>).collect())
    }
}

fn steps() -> Steps {
    Steps(vec![
        Step("001", "CREATE TABLE notes (id INTEGER PRIMARY KEY)", "DROP TABLE notes", true),
        Step(
            "002",
            "ALTER TABLE notes ADD COLUMN text TEXT NOT NULL DEFAULT 'none'; \
             INSERT INTO notes DEFAULT VALUES",
            "DELETE FROM notes; ALTER TABLE notes DROP COLUMN text",
            true,
        ),
        Step("003", "CREATE INDEX by_text ON notes (text)", "DROP INDEX by_text", false),
    ])
}

fn applied(conn: &mut Conn) -> Vec<String> {
    conn.applied_migrations().unwrap().into_iter().map(|version| version.to_string()).collect()
}

#[test]
fn all_that_are_pending_run_once() {
    let conn = &mut *fresh();
    let ran: Vec<_> = conn
        .run_pending_migrations(steps())
        .unwrap()
        .into_iter()
        .map(|version| version.to_string())
        .collect();
    assert_eq!(ran, ["001", "002", "003"]);
    assert_eq!(applied(conn), ["003", "002", "001"]);
    assert!(conn.run_pending_migrations(steps()).unwrap().is_empty());
    assert_eq!(conn.has_pending_migration(steps()).ok(), Some(false));
    assert_eq!(
        sql::<Text>("SELECT text FROM notes").load::<String>(conn),
        Ok(vec!["none".to_owned()])
    );
}

#[test]
fn the_next_one_only() {
    let conn = &mut *fresh();
    assert_eq!(conn.run_next_migration(steps()).unwrap().to_string(), "001");
    assert_eq!(conn.has_pending_migration(steps()).ok(), Some(true));
    assert_eq!(conn.run_next_migration(steps()).unwrap().to_string(), "002");
    assert_eq!(applied(conn), ["002", "001"]);
}

#[test]
fn the_last_one_is_reverted() {
    let conn = &mut *fresh();
    conn.run_pending_migrations(steps()).unwrap();
    assert_eq!(conn.revert_last_migration(steps()).unwrap().to_string(), "003");
    assert_eq!(conn.revert_last_migration(steps()).unwrap().to_string(), "002");
    assert_eq!(applied(conn), ["001"]);
    assert_eq!(sql::<BigInt>("SELECT count(*) FROM notes").get_result::<i64>(conn), Ok(0));
}

#[test]
fn all_are_reverted() {
    let conn = &mut *fresh();
    conn.run_pending_migrations(steps()).unwrap();
    assert_eq!(conn.revert_all_migrations(steps()).unwrap().len(), 3);
    assert!(applied(conn).is_empty());
    assert_eq!(
        sql::<BigInt>("SELECT count(*) FROM sqlite_schema WHERE name = 'notes'")
            .get_result::<i64>(conn),
        Ok(0)
    );
}

#[test]
fn one_that_fails_leaves_those_before_it() {
    let conn = &mut *fresh();
    let mut broken = steps();
    broken.0[1].1 = "INSERT INTO notes DEFAULT VALUES; nonsense";
    let error = conn.run_pending_migrations(broken).unwrap_err();
    assert_eq!(error.to_string(), "near \"nonsense\": syntax error");
    assert_eq!(applied(conn), ["001"]);
    assert_eq!(sql::<BigInt>("SELECT count(*) FROM notes").get_result::<i64>(conn), Ok(0));
    conn.run_pending_migrations(steps()).unwrap();
    assert_eq!(applied(conn).len(), 3);
}

#[test]
fn another_connection_lists_applied_migrations() {
    let fixture = &mut fresh();
    fixture.run_pending_migrations(steps()).unwrap();
    let other = &mut fixture.another();
    assert_eq!(applied(other), ["003", "002", "001"]);
    assert!(other.run_pending_migrations(steps()).unwrap().is_empty());
}

#[test]
fn files_that_begin_with_a_byte_order_mark() {
    let conn = &mut *fresh();
    let mut marked = steps();
    marked.0[0].1 = "\u{feff}-- A note.\nCREATE TABLE notes (id INTEGER PRIMARY KEY);\n";
    marked.0[1].1 = "\u{feff}ALTER TABLE notes ADD COLUMN text TEXT;\u{feff}";
    marked.0[2].1 = "\u{feff}CREATE INDEX by_text ON notes (text)";
    conn.run_pending_migrations(marked).unwrap();
    assert_eq!(applied(conn), ["003", "002", "001"]);
    assert_eq!(sql::<BigInt>("SELECT count(text) FROM notes").get_result::<i64>(conn), Ok(0));
}
