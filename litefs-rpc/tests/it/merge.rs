//! Rows that are inserted in merged statements have the results that they would have one by one, or
//! in one statement: the same requests run merged and not, on two databases.

#![cfg(feature = "diesel")]

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::{Opened, SqliteExecutor};
use litefs_rpc::wire::{
    BeginMode, Command, Delivery, Output, Repeated, Request, RequestId, ServerError, Settings,
    Statement, Value,
};
use litefs_rpc::{Done, Executor};
use proptest::prelude::*;
use tempfile::TempDir;

/// Features of a schema that may make a row depend on another.
#[derive(Debug, Clone)]
struct Schema {
    on_conflict: &'static str,
    references: &'static str,
    trigger: &'static str,
}

fn any_schema() -> impl Strategy<Value = Schema> {
    let on_conflict =
        prop::sample::select(vec!["", "IGNORE", "REPLACE", "FAIL", "ROLLBACK", "ABORT"]);
    let references = prop::sample::select(vec![
        "",
        "REFERENCES t (id)",
        "REFERENCES T",
        "REFERENCES parent (id)",
    ]);
    let trigger = prop::sample::select(vec![
        "",
        "AFTER INSERT ON t BEGIN INSERT INTO log (what) SELECT count(*) FROM t; END",
        "BEFORE INSERT ON t WHEN new.id % 50 = 7 BEGIN SELECT RAISE(IGNORE); END",
        "AFTER INSERT ON t WHEN new.id % 90 = 7 BEGIN SELECT RAISE(FAIL, 'no'); END",
        "AFTER DELETE ON t BEGIN INSERT INTO log (what) VALUES (old.id); END",
    ]);
    let plain = Schema { on_conflict: "", references: "", trigger: "" };
    prop_oneof![
        2 => Just(plain),
        5 => (on_conflict, references, trigger).prop_map(|(on_conflict, references, trigger)| {
            Schema { on_conflict, references, trigger }
        }),
        3 => any_single_feature(),
    ]
}

fn any_single_feature() -> impl Strategy<Value = Schema> {
    let plain = Schema { on_conflict: "", references: "", trigger: "" };
    prop::sample::select(vec![
        Schema { on_conflict: "IGNORE", ..plain.clone() },
        Schema { on_conflict: "REPLACE", ..plain.clone() },
        Schema { on_conflict: "FAIL", ..plain.clone() },
        Schema { on_conflict: "ROLLBACK", ..plain.clone() },
        Schema { references: "REFERENCES t (id)", ..plain.clone() },
        Schema { references: "REFERENCES parent (id)", ..plain.clone() },
        Schema { references: "REFERENCES parent (id)", on_conflict: "REPLACE", ..plain },
    ])
}

impl Schema {
    fn sql(&self) -> String {
        let Self { on_conflict, references, trigger } = self;
        let conflict = if on_conflict.is_empty() {
            String::new()
        } else {
            format!("ON CONFLICT {on_conflict}")
        };
        let trigger =
            if trigger.is_empty() { String::new() } else { format!("CREATE TRIGGER x {trigger};") };
        format!(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY);
             WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n LIMIT 500)
                 INSERT INTO parent SELECT x FROM n;
             CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what INTEGER);
             CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER UNIQUE {conflict},
                 p INTEGER {references}, c INTEGER CHECK (c < 90));
             CREATE TABLE child (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t (id));
             INSERT INTO t VALUES (400, 400, NULL, 1); INSERT INTO child VALUES (1, 400); {trigger}"
        )
    }
}

#[derive(Debug, Clone)]
struct Rows {
    verb: &'static str,
    rows: Vec<[i64; 4]>,
    /// In one statement, not in one statement per row.
    one: bool,
    keys: bool,
    delivery: Delivery,
}

fn any_rows() -> impl Strategy<Value = Rows> {
    let verb = prop::sample::select(vec![
        "INSERT INTO",
        "INSERT INTO",
        "REPLACE INTO",
        "INSERT OR IGNORE INTO",
    ]);
    let count = prop_oneof![1 => 1..64_usize, 4 => 64..400_usize];
    let odd = prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, 0..500_i64), 0..4);
    let delivery = prop::sample::select(vec![Delivery::ExactlyOnce, Delivery::AtMostOnce]);
    (verb, count, 0..300_i64, odd, any::<bool>(), any::<bool>(), delivery).prop_map(
        |(verb, count, first, odd, one, keys, delivery)| {
            let mut rows: Vec<[i64; 4]> =
                (first..).take(count).map(|n| [n, n, (n - first).max(1) % 499, 1]).collect();
            for (at, column, value) in odd {
                rows[at.index(count)][column] = if column == 3 { value % 95 } else { value };
            }
            Rows { verb, rows, one, keys, delivery }
        },
    )
}

impl Rows {
    fn request(&self, work: Command) -> Request {
        let settings = Settings { foreign_keys: self.keys, ..Settings::default() };
        Request { id: RequestId::new(), delivery: self.delivery, again: false, settings, work }
    }

    fn short(&self) -> Repeated {
        Repeated {
            sql: format!("{} t (id, u, p, c) VALUES (?, ?, ?, ?)", self.verb),
            times: self.rows.len(),
            params: self.rows.iter().flatten().copied().map(Value::Integer).collect(),
            cacheable: true,
        }
    }

    /// The request as clients send it.
    fn merged(&self) -> Request {
        let short = self.short();
        self.request(if self.one { Command::Insert(short.into()) } else { batch(vec![short]) })
    }

    /// The same request, one statement per row.
    fn plain(&self) -> Request {
        let short = self.short();
        self.request(if self.one {
            let sql = short.unrolled(short.times);
            Command::Execute(Statement { sql, params: short.params, cacheable: false })
        } else {
            batch(short.split().collect())
        })
    }
}

fn batch(statements: Vec<Repeated>) -> Command {
    Command::Batch { statements: statements.into(), rows: false }
}

struct Side {
    _dir: TempDir,
    path: String,
    executor: SqliteExecutor,
}

impl Side {
    fn new(schema: &Schema) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let mut conn = SqliteConnection::establish(&path).unwrap();
        conn.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
        conn.batch_execute(&schema.sql()).unwrap();
        Self { _dir: dir, executor: SqliteExecutor::new(open(&path), 1 << 20), path }
    }

    fn write(&mut self, requests: &[Request]) -> Vec<Reply> {
        requests.iter().map(|request| reply(self.executor.write(request))).collect()
    }

    /// In one transaction, which is committed if it is still open.
    fn transaction(&mut self, requests: &[Request]) -> Vec<Reply> {
        self.executor.begin(&requests[0].settings, BeginMode::Immediate).unwrap();
        let mut all = Vec::new();
        for request in requests {
            all.push(reply(self.executor.step(&request.work)));
            if !self.executor.in_transaction() {
                return all;
            }
        }
        all.push(reply(self.executor.commit(None)));
        if self.executor.in_transaction() {
            self.executor.rollback();
        }
        all
    }

    fn contents(&mut self) -> Vec<Value> {
        let read = |sql: &str| {
            let work =
                Command::Query(Statement { sql: sql.into(), params: vec![], cacheable: false });
            let settings = Settings::default();
            let id = RequestId::new();
            let mut reader = SqliteExecutor::new(open(&self.path), 1 << 20);
            let request =
                Request { id, delivery: Delivery::AtMostOnce, again: false, settings, work };
            match reader.write(&request).unwrap().answer {
                Output::Rows(rows) => rows.values,
                other => panic!("{other:?}"),
            }
        };
        ["SELECT * FROM t ORDER BY id", "SELECT * FROM log ORDER BY id"]
            .into_iter()
            .flat_map(read)
            .collect()
    }
}

fn open(path: &str) -> litefs_rpc::sqlite::Open {
    let path = path.to_owned();
    Box::new(move || {
        let mut opened = Opened::establish(&path)?;
        // A crash of the machine is not tested here.
        let quick = opened.connection.batch_execute("PRAGMA synchronous = OFF");
        quick.map_err(diesel::result::ConnectionError::CouldntSetupConfiguration)?;
        Ok(opened)
    })
}

type Reply = Result<(Output, bool, i64, i64, i64), ServerError>;

/// The reply to the caller. The rowid is meaningful after an insert only.
fn reply(result: Result<Done, ServerError>) -> Reply {
    let Done { answer, effects, .. } = result?;
    // The tables show its effects.
    if let Output::Failed(error) = answer {
        return Err(ServerError::Database(error));
    }
    let rowid = if effects.inserted { effects.last_insert_rowid } else { 0 };
    Ok((answer, effects.inserted, rowid, effects.changes, effects.total_changes))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 160,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn merged_inserts_have_the_results_of_single_ones(
        schema in any_schema(),
        all in prop::collection::vec(any_rows(), 1..4),
        transaction in any::<bool>(),
    ) {
        let merged: Vec<_> = all.iter().map(Rows::merged).collect();
        let plain: Vec<_> = all.iter().map(Rows::plain).collect();
        let (mut one, mut other) = (Side::new(&schema), Side::new(&schema));
        let run = |side: &mut Side, requests: &[Request]| {
            if transaction { side.transaction(requests) } else { side.write(requests) }
        };
        prop_assert_eq!(run(&mut one, &merged), run(&mut other, &plain));
        prop_assert_eq!(one.contents(), other.contents());
    }
}

#[test]
fn a_replaced_parent_row_fails_despite_a_later_insert() {
    let schema = Schema { on_conflict: "", references: "REFERENCES parent (id)", trigger: "" };
    // The third replaces the row 400 and its id, the fifth inserts the row again.
    let mut rows: Vec<_> = (0..300).map(|n| [n, n, 1, 1]).collect();
    rows[2] = [2, 400, 1, 1];
    rows[4] = [400, 4, 1, 1];
    let rows = Rows {
        verb: "REPLACE INTO",
        rows,
        one: false,
        keys: true,
        delivery: Delivery::ExactlyOnce,
    };
    let (mut one, mut other) = (Side::new(&schema), Side::new(&schema));
    let (merged, plain) = (one.write(&[rows.merged()]), other.write(&[rows.plain()]));
    assert!(matches!(&plain[..], [Err(ServerError::Database(_))]), "{plain:?}");
    assert_eq!(merged, plain);
}

#[test]
fn a_default_with_changes_sees_each_row() {
    let schema = Schema { on_conflict: "", references: "DEFAULT (total_changes())", trigger: "" };
    let rows = (0..400).map(|n| [n, n, 1, 1]).collect();
    let rows = Rows {
        verb: "INSERT INTO",
        rows,
        one: false,
        keys: false,
        delivery: Delivery::ExactlyOnce,
    };
    let without = |request: Request| match request.work {
        Command::Batch { statements, rows } => {
            let statements = statements.iter().cloned().map(|mut repeated| {
                repeated.sql = "INSERT INTO t (id, u) VALUES (?, ?)".into();
                repeated.params = repeated.runs().flat_map(|params| params[..2].to_vec()).collect();
                repeated
            });
            Request { work: Command::Batch { statements: statements.collect(), rows }, ..request }
        }
        _ => request,
    };
    let (mut one, mut other) = (Side::new(&schema), Side::new(&schema));
    let merged = one.write(&[without(rows.merged())]);
    assert!(merged[0].is_ok(), "{merged:?}");
    assert_eq!(merged, other.write(&[without(rows.plain())]));
    assert_eq!(one.contents(), other.contents());
}

#[test]
fn uneven_parameters_of_a_repeated_statement_are_refused() {
    let schema = Schema { on_conflict: "", references: "", trigger: "" };
    let rows = Rows {
        verb: "INSERT INTO",
        rows: vec![[1; 4]; 3],
        one: false,
        keys: false,
        delivery: Delivery::ExactlyOnce,
    };
    let mut odd = rows.short();
    odd.times = 5;
    let mut side = Side::new(&schema);
    for work in [Command::Insert(odd.clone().into()), batch(vec![odd])] {
        let reply = side.write(&[rows.request(work)]);
        assert!(matches!(&reply[..], [Err(ServerError::Denied { .. })]), "{reply:?}");
    }
    assert_eq!(side.contents().len(), 4);
}
