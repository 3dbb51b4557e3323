//! Another object in place of the table of outcomes: no write is acknowledged without its outcome.

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;

use super::*;
use crate::executor::{CommitExpectation, Done, Executor};
use crate::sqlite::{Opened, SqliteExecutor};
use crate::wire::{BeginMode, Command, Delivery, Request, ServerError, Settings, Statement};

const IGNORING: &str =
    "CREATE TRIGGER t BEFORE INSERT ON _litefs_outcomes BEGIN SELECT RAISE(IGNORE); END";
const STUBBORN: &str =
    "CREATE TRIGGER t BEFORE UPDATE ON _litefs_outcomes BEGIN SELECT RAISE(IGNORE); END";
const VIEW: &str =
    "CREATE VIEW _litefs_outcomes AS SELECT x'' AS id, 0 AS at, x'' AS outcome WHERE 0;
    CREATE TRIGGER t INSTEAD OF INSERT ON _litefs_outcomes BEGIN SELECT 1; END";

/// A database with what `sql` makes in it, and an executor on it.
struct Side {
    dir: tempfile::TempDir,
    executor: SqliteExecutor,
}

impl Side {
    fn new(sql: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let mut conn = SqliteConnection::establish(&path).unwrap();
        conn.batch_execute("CREATE TABLE t (x)").unwrap();
        sql.iter().try_for_each(|sql| conn.batch_execute(sql)).unwrap();
        let executor = SqliteExecutor::new(Box::new(move || Opened::establish(&path)), 1_000);
        Self { dir, executor }
    }

    fn rows(&self) -> i64 {
        let path = self.dir.path().join("db");
        let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let query = BoundQuery::new("SELECT count(*) FROM t", &[], false);
        crate::sqlite::session::integers_of::<1>(&mut conn, query).unwrap()[0]
    }

    fn group(&mut self, request: &Request) -> Result<Done, ServerError> {
        assert!(self.executor.open_group(&request.settings).unwrap());
        let joined = self.executor.join(request);
        match joined.and_then(|done| self.executor.close_group().map(|_| done)) {
            Ok(done) => done,
            Err(_) => {
                self.executor.rollback();
                self.executor.write(request)
            }
        }
    }

    fn session(&mut self, request: &Request) -> Result<Done, ServerError> {
        self.executor.begin(&request.settings, BeginMode::Immediate).unwrap();
        self.executor.step(&request.work).unwrap();
        let done = self.executor.commit(Some(request.id));
        assert!(!self.executor.in_transaction());
        done
    }
}

fn insert() -> Statement {
    Statement { sql: "INSERT INTO t VALUES (1)".into(), params: vec![], cacheable: true }
}

fn request(work: Command) -> Request {
    let (id, settings) = (RequestId::new(), Settings::default());
    Request { id, delivery: Delivery::ExactlyOnce, again: false, settings, work }
}

fn says_what_to_do<T: std::fmt::Debug>(result: Result<T, ServerError>, shape: &str) {
    let Err(ServerError::Denied { what }) = result else { panic!("{shape}: {result:?}") };
    assert!(what.contains("_litefs_outcomes") && what.contains("drop"), "{what}");
}

#[test]
fn a_table_that_keeps_no_outcome_refuses_every_kind_of_write() {
    let shapes: [&[&str]; 7] = [
        &[CREATE, IGNORING],
        &[VIEW],
        &["CREATE TABLE _litefs_outcomes (id BLOB, at INTEGER, outcome BLOB)"],
        &["CREATE TABLE _litefs_outcomes (id BLOB PRIMARY KEY, what TEXT)"],
        &["CREATE TABLE _litefs_outcomes (id INTEGER PRIMARY KEY, at INTEGER, outcome BLOB)"],
        &["CREATE TABLE _litefs_outcomes (id BLOB PRIMARY KEY, at, outcome, more NOT NULL)"],
        &["CREATE TABLE _litefs_outcomes \
           (id BLOB PRIMARY KEY, at, outcome CHECK (outcome > x'ff'))"],
    ];
    let scripts = ["INSERT INTO t VALUES (1)", "BEGIN; INSERT INTO t VALUES (1); COMMIT"];
    for shape in shapes {
        let mut side = Side::new(shape);
        let what = shape.join("; ");
        for work in [Command::Execute(insert()), Command::Query(insert())] {
            says_what_to_do(side.executor.write(&request(work)), &what);
        }
        for script in scripts {
            says_what_to_do(side.executor.write(&request(Command::Script(script.into()))), &what);
        }
        says_what_to_do(side.group(&request(Command::Execute(insert()))), &what);
        says_what_to_do(side.session(&request(Command::Execute(insert()))), &what);
        says_what_to_do(side.executor.resolve_outcome(RequestId::new()), &what);
        assert_eq!(side.rows(), 0, "{what}");
        let once =
            Request { delivery: Delivery::AtMostOnce, ..request(Command::Execute(insert())) };
        assert!(side.executor.write(&once).is_ok(), "nothing is to be kept");
    }
}

#[test]
fn a_script_whose_end_is_not_recorded_is_of_unknown_outcome() {
    let mut side = Side::new(&[CREATE, STUBBORN]);
    let script = request(Command::Script("BEGIN; INSERT INTO t VALUES (1); COMMIT".into()));
    let refused = side.executor.write(&script);
    assert!(matches!(refused, Err(ServerError::Unconfirmed { .. })), "{refused:?}");
    let again = Request { again: true, ..script };
    assert_eq!(side.executor.write(&again), Err(ServerError::Interrupted));
    assert_eq!(side.rows(), 1);
}

#[test]
fn a_table_of_another_version_is_used_as_it_is() {
    for shape in [
        "CREATE TABLE _litefs_outcomes (id BLOB PRIMARY KEY, at INTEGER, outcome BLOB)",
        "CREATE TABLE _litefs_outcomes (id BLOB PRIMARY KEY, at INTEGER NOT NULL, outcome BLOB \
         NOT NULL, more TEXT, and_more INTEGER NOT NULL DEFAULT 7) WITHOUT ROWID",
    ] {
        let mut side = Side::new(&[shape]);
        let first = request(Command::Execute(insert()));
        let answer = side.executor.write(&first).unwrap().answer;
        let again = Request { again: true, ..first.clone() };
        assert_eq!(side.executor.write(&again).unwrap().answer, answer);
        assert_eq!(
            side.executor.write(&first).unwrap().answer,
            answer,
            "although it is not marked as a retry"
        );
        assert_eq!(
            side.executor.resolve_outcome(first.id).unwrap().1,
            CommitExpectation::Unchanged
        );
        assert_eq!(side.rows(), 1);
    }
}
