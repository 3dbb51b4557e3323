//! Requests that share a transaction have the results that they would have alone: the same
//! sequences run grouped and one by one, on two databases.

#![cfg(feature = "diesel")]

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::{Opened, SqliteExecutor};
use litefs_rpc::wire::{
    Command, Delivery, Output, Repeated, Request, RequestId, ServerError, Settings, Statement,
    Value,
};
use litefs_rpc::{Done, Executor, GroupAborted};
use proptest::prelude::*;
use tempfile::TempDir;

const SCHEMA: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, c INTEGER CHECK (c < 90));
    CREATE TABLE r (id INTEGER PRIMARY KEY, u INTEGER UNIQUE ON CONFLICT ROLLBACK);
    CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
    CREATE TABLE child (id INTEGER PRIMARY KEY, t INTEGER NOT NULL REFERENCES t (id));
    CREATE TRIGGER logged AFTER INSERT ON t BEGIN
        INSERT INTO log (what) VALUES ('t' || new.id);
    END;
    CREATE TRIGGER back AFTER INSERT ON t WHEN new.c = 41 BEGIN SELECT RAISE(ROLLBACK, 'back'); END;
    CREATE TRIGGER fail AFTER INSERT ON t WHEN new.c = 42 BEGIN SELECT RAISE(FAIL, 'fail'); END;
    CREATE TRIGGER abort AFTER INSERT ON t WHEN new.c = 43 BEGIN SELECT RAISE(ABORT, 'abort'); END;
    CREATE TRIGGER ignore AFTER INSERT ON t WHEN new.c = 44 BEGIN SELECT RAISE(IGNORE); END;
";
const DEFERRED: &str = "
    CREATE TABLE late (
        id INTEGER PRIMARY KEY,
        t INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED
    );
";

/// A database with an executor on it.
struct Side {
    _dir: TempDir,
    path: String,
    executor: SqliteExecutor,
}

impl Side {
    fn new(deferred: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let mut conn = SqliteConnection::establish(&path).unwrap();
        conn.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
        conn.batch_execute(SCHEMA).unwrap();
        if deferred {
            conn.batch_execute(DEFERRED).unwrap();
        }
        let opened = path.clone();
        // A crash of the machine is not tested here.
        let open = Box::new(move || {
            let mut opened = Opened::establish(&opened)?;
            let quick = opened.connection.batch_execute("PRAGMA synchronous = OFF");
            quick.map_err(diesel::result::ConnectionError::CouldntSetupConfiguration)?;
            Ok(opened)
        });
        Self { _dir: dir, path, executor: SqliteExecutor::new(open, 4_000) }
    }

    fn alone(&mut self, requests: &[Request]) -> Vec<Result<Done, ServerError>> {
        requests.iter().map(|request| self.executor.write(request)).collect()
    }

    /// Executes requests as the writer does: in one transaction if possible, else one by one.
    fn grouped(&mut self, requests: &[Request]) -> (Vec<Result<Done, ServerError>>, usize) {
        let (mut results, mut shared, mut rest) = (Vec::new(), 0, requests);
        while !rest.is_empty() {
            let settings = rest[0].settings;
            let fits = |request: &&Request| {
                request.settings == settings && self.executor.may_share(request)
            };
            let together = rest.iter().take_while(fits).count().max(1);
            let (group, others) = rest.split_at(together);
            rest = others;
            match self.in_one(group) {
                Some(done) => {
                    shared += done.len();
                    results.extend(done);
                }
                None => results.extend(self.alone(group)),
            }
        }
        (results, shared)
    }

    fn in_one(&mut self, group: &[Request]) -> Option<Vec<Result<Done, ServerError>>> {
        if group.len() < 2 || !self.executor.open_group(&group[0].settings).unwrap() {
            return None;
        }
        let joined: Result<Vec<_>, GroupAborted> =
            group.iter().map(|request| self.executor.join(request)).collect();
        let closed = joined.and_then(|done| self.executor.close_group().map(|_| done));
        if closed.is_err() {
            self.executor.rollback();
        }
        closed.ok()
    }

    fn contents(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        for sql in [
            "SELECT * FROM t ORDER BY id",
            "SELECT * FROM r ORDER BY id",
            "SELECT * FROM child ORDER BY id",
            "SELECT * FROM log ORDER BY id",
            "SELECT * FROM sqlite_sequence",
            "SELECT id FROM _litefs_outcomes ORDER BY id",
        ] {
            let statement = Statement { sql: sql.into(), params: vec![], cacheable: false };
            let mut reader = SqliteExecutor::new(
                {
                    let path = self.path.clone();
                    Box::new(move || Opened::establish(&path))
                },
                1 << 20,
            );
            let read =
                reader.write(&request(Command::Query(statement), Delivery::AtMostOnce, false));
            if let Ok(Done { answer: Output::Rows(rows), .. }) = read {
                all.extend(rows.values);
            }
        }
        all
    }
}

fn request(work: Command, delivery: Delivery, foreign_keys: bool) -> Request {
    let settings = Settings { foreign_keys, ..Settings::default() };
    Request { id: RequestId::new(), delivery, again: false, settings, work }
}

fn statement(sql: String, params: Vec<i64>) -> Statement {
    Statement { sql, params: params.into_iter().map(Value::Integer).collect(), cacheable: true }
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let or = prop::sample::select(vec![
        "",
        "OR IGNORE",
        "OR REPLACE",
        "OR FAIL",
        "OR ROLLBACK",
        "OR ABORT",
    ]);
    let (id, u, c) =
        (0..12_i64, 0..8_i64, prop_oneof![8 => 30..40_i64, 2 => 40..46_i64, 1 => Just(95_i64)]);
    let returning = prop::sample::select(vec!["", " RETURNING id, u"]);
    prop_oneof![
        6 => (or.clone(), id.clone(), u.clone(), c.clone(), returning.clone())
            .prop_map(|(or, id, u, c, r)|
                statement(format!("INSERT {or} INTO t VALUES (?, ?, ?){r}"), vec![id, u, c])),
        2 => (or.clone(), id.clone(), u.clone(), c.clone()).prop_map(|(or, id, u, c)| statement(
            format!("INSERT {or} INTO t VALUES (NULL, ?2 + 1, 31), (?1, ?2, ?3)"),
            vec![id, u, c])),
        2 => (or, u.clone(), id.clone()).prop_map(|(or, u, id)|
            statement(format!("UPDATE {or} t SET u = ? WHERE id >= ?"), vec![u, id])),
        2 => (id.clone(), u.clone()).prop_map(|(id, u)| statement(
            "INSERT INTO t VALUES (?1, ?2, 33) ON CONFLICT (u) DO UPDATE SET c = c + 1".into(),
            vec![id, u])),
        2 => (id.clone(), returning).prop_map(|(id, r)|
            statement(format!("DELETE FROM t WHERE id = ?{r}"), vec![id])),
        1 => (id.clone(), u).prop_map(|(id, u)|
            statement("INSERT INTO r VALUES (?, ?)".into(), vec![id, u])),
        2 => (id.clone(), id.clone()).prop_map(|(id, t)|
            statement("INSERT INTO child VALUES (?, ?)".into(), vec![id, t])),
        1 => (id.clone(), id).prop_map(|(id, t)|
            statement("INSERT INTO late VALUES (?, ?)".into(), vec![id, t])),
        1 => Just(statement("INSERT INTO nowhere VALUES (1)".into(), vec![])),
        1 => Just(statement(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 400) \
             INSERT INTO log (what) SELECT 'much more than fits into an answer' FROM n \
             RETURNING what".into(),
            vec![])),
        1 => Just(statement("UPDATE t SET c = c WHERE id < 0".into(), vec![])),
    ]
}

fn any_work() -> impl Strategy<Value = Command> {
    let batch = prop::collection::vec(any_statement(), 1..4);
    prop_oneof![
        12 => any_statement().prop_map(|statement| match statement.sql.contains("RETURNING") {
            true => Command::Query(statement),
            false => Command::Execute(statement),
        }),
        2 => batch.prop_map(|statements| Command::Batch {
            statements: statements.into_iter().map(Repeated::from).collect(),
            rows: false,
        }),
        1 => Just(Command::Script("INSERT INTO log (what) VALUES ('script')".into())),
        1 => Just(Command::Execute(statement("PRAGMA user_version = 3".into(), vec![]))),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    New(Command, Delivery, bool),
    /// An earlier request, sent again, with or without the flag that says so.
    Again(prop::sample::Index, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let delivery = prop_oneof![4 => Just(Delivery::ExactlyOnce), 1 => Just(Delivery::AtMostOnce)];
    prop_oneof![
        9 => (any_work(), delivery, prop::bool::weighted(0.8)).prop_map(|(work, delivery, keys)|
            Step::New(work, delivery, keys)),
        1 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(which, said)| Step::Again(which, said)),
    ]
}

fn requests(steps: Vec<Step>) -> Vec<Request> {
    let mut all: Vec<Request> = Vec::new();
    for step in steps {
        all.push(match step {
            Step::New(work, delivery, keys) => request(work, delivery, keys),
            Step::Again(..) if all.is_empty() => continue,
            Step::Again(which, again) => {
                let before = which.get(&all).clone();
                // Requests without a stored outcome must not be sent twice.
                if before.delivery == Delivery::AtMostOnce {
                    continue;
                } else {
                    Request { again, ..before }
                }
            }
        });
    }
    all
}

type Reply = Result<(Output, bool, i64, i64, i64), ServerError>;

/// The reply to the caller. The rowid is meaningful after an insert only.
fn reply(requests: &[Request], results: Vec<Result<Done, ServerError>>) -> Vec<Reply> {
    let reply = |(request, result): (&Request, Result<Done, ServerError>)| {
        let inserts = request.work.texts().any(|sql| sql.contains("INSERT"));
        result.map(|Done { answer, effects, .. }| {
            let rowid = if inserts && effects.inserted { effects.last_insert_rowid } else { 0 };
            (answer, effects.inserted, rowid, effects.changes, effects.total_changes)
        })
    };
    requests.iter().zip(results).map(reply).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn grouped_requests_have_the_results_they_would_have_alone(
        steps in prop::collection::vec(any_step(), 2..24),
        deferred in prop::bool::weighted(0.15),
    ) {
        let requests = requests(steps);
        let (mut one, mut other) = (Side::new(deferred), Side::new(deferred));
        let alone = one.alone(&requests);
        let (grouped, _) = other.grouped(&requests);
        prop_assert_eq!(reply(&requests, alone), reply(&requests, grouped));
        prop_assert_eq!(one.contents(), other.contents());
    }
}

#[test]
fn compatible_requests_share_a_transaction() {
    let mut side = Side::new(false);
    let insert = |id| {
        request(
            Command::Execute(statement("INSERT INTO t VALUES (?, ?, 31)".into(), vec![id, id])),
            Delivery::ExactlyOnce,
            true,
        )
    };
    // The fourth fails alone.
    let requests: Vec<_> = [1, 2, 3, 3, 4].into_iter().map(insert).collect();
    let (results, shared) = side.grouped(&requests);
    assert_eq!(shared, 5);
    let fine: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, true, true, false, true]);
}

#[test]
fn deferred_keys_are_checked_for_each_request_alone() {
    let late = statement("INSERT INTO late VALUES (1, 7)".into(), vec![]);
    let brought = statement("INSERT INTO t VALUES (7, 7, 31)".into(), vec![]);
    let requests =
        [late, brought].map(|s| request(Command::Execute(s), Delivery::ExactlyOnce, true));
    let (results, shared) = Side::new(true).grouped(&requests);
    assert_eq!(shared, 0);
    assert!(results[0].is_err() && results[1].is_ok(), "{results:?}");
}
