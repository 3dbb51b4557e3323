//! Random transactions on replicas and the primary at once: every history is serializable.
//!
//! Scenario X17. Each transaction that commits inserts a marker with an automatic id, so the ids
//! are the order of the commits. The committed transactions run again one by one on plain SQLite in
//! that order, and each statement must have the result that its application saw. Transactions that
//! only read must fit between two commits, in the order of their connection.
//!
//! `LITEFS_X17_CASES` and `LITEFS_X17_SEED` choose how many cases run and the seed of the first.

use std::collections::VecDeque;
use std::fmt::Write as _;

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Integer, Text};
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_diesel::{Failure, LiteFsConnection, TransactionMode};
use litefs_tests::TestCluster;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptest::{prelude::*, sample};

const SCHEMA: &str = "
    CREATE TABLE kv (k INTEGER PRIMARY KEY, v INTEGER NOT NULL);
    CREATE TABLE items (id INTEGER PRIMARY KEY, grp INTEGER NOT NULL, tag TEXT UNIQUE,
        n INTEGER NOT NULL DEFAULT 0 CHECK (n < 20));
    CREATE INDEX items_grp ON items (grp);
    CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
    CREATE TABLE pairs (a TEXT, b INTEGER, c INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE marker (id INTEGER PRIMARY KEY, number INTEGER NOT NULL);
    CREATE TRIGGER kv_log AFTER UPDATE ON kv BEGIN
        INSERT INTO log (what) VALUES (old.k || ':' || old.v || '>' || new.v); END;
    CREATE TRIGGER no_n3 BEFORE INSERT ON auto WHEN new.note = 'n3' BEGIN
        SELECT RAISE(ABORT, 'n3 is refused'); END;
    CREATE VIEW totals AS SELECT grp, sum(n) AS s, count(*) AS c FROM items GROUP BY grp;
    CREATE TRIGGER into_totals INSTEAD OF INSERT ON totals BEGIN
        INSERT INTO items (grp, n) VALUES (new.grp, new.s);
        UPDATE kv SET v = v + 1 WHERE k = new.grp; END;
";

const DATA: &str = "
    DELETE FROM kv; DELETE FROM items; DELETE FROM auto; DELETE FROM pairs; DELETE FROM log;
    DELETE FROM marker; DELETE FROM sqlite_sequence;
    INSERT INTO kv VALUES (0, 10), (1, 20), (2, 30);
    INSERT INTO items VALUES (1, 0, 't0', 1), (2, 1, 't1', 2), (3, 1, NULL, 3);
    INSERT INTO pairs VALUES ('a0', 0, 0), ('a1', 1, 1);
";

/// All that is compared at the end.
const DUMP: &str = "
    SELECT 'kv ' || k || ' ' || v AS r FROM kv
    UNION ALL SELECT 'items ' || id || ' ' || grp || ' ' || quote(tag) || ' ' || n FROM items
    UNION ALL SELECT 'auto ' || id || ' ' || quote(note) FROM auto
    UNION ALL SELECT 'pairs ' || a || ' ' || b || ' ' || c FROM pairs
    UNION ALL SELECT 'log ' || id || ' ' || quote(what) FROM log
    UNION ALL SELECT 'marker ' || id || ' ' || number FROM marker
    UNION ALL SELECT 'sequence ' || name || ' ' || seq FROM sqlite_sequence ORDER BY 1";

/// Queries of one column `r`, with parameters from 0 to 4.
const READS: [&str; 17] = [
    "SELECT quote(v) AS r FROM kv WHERE k = ?",
    "SELECT k || '=' || v AS r FROM kv WHERE k BETWEEN ? AND ? ORDER BY k",
    "SELECT k || '=' || v AS r FROM kv",
    "SELECT '' || coalesce(sum(v), 0) AS r FROM kv",
    "SELECT '' || count(*) AS r FROM items WHERE grp = ?",
    "SELECT id || ',' || n AS r FROM items ORDER BY n DESC, id LIMIT 2",
    "SELECT id || ',' || grp || ',' || quote(tag) || ',' || n AS r FROM items LIMIT 3",
    "SELECT grp || ':' || s || '/' || c AS r FROM totals ORDER BY grp",
    "SELECT i.id || '~' || kv.v AS r FROM items i JOIN kv ON kv.k = i.grp",
    "SELECT count(*) || '/' || coalesce(max(id), 0) AS r FROM log",
    "SELECT what AS r FROM log ORDER BY id DESC LIMIT 2",
    "SELECT a || b || c AS r FROM pairs WHERE a = 'a' || ?",
    "SELECT name || seq AS r FROM sqlite_sequence",
    "SELECT id || note AS r FROM auto ORDER BY id DESC LIMIT 1",
    "SELECT 'found' AS r WHERE EXISTS (SELECT 1 FROM items WHERE tag = 't' || ?)",
    "SELECT row_number() OVER (ORDER BY id) || ':' || n AS r FROM items WHERE grp = ?",
    "SELECT '' || abs(-9223372036854775807 - (v > 25)) AS r FROM kv WHERE k = ?",
];

/// Statements that write and return rows.
const RETURNING: [&str; 6] = [
    "INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = kv.v + excluded.v \
     RETURNING k || '=' || v AS r",
    "INSERT INTO items (grp, tag) VALUES (?, 't' || ?) RETURNING '' || id AS r",
    "INSERT INTO items (id, grp) VALUES (? + 10, ?) RETURNING '' || n AS r",
    "UPDATE kv SET v = v + 1 WHERE k <= ? RETURNING k || '=' || v AS r",
    "DELETE FROM items WHERE id = (SELECT max(id) FROM items) RETURNING id || ',' || n AS r",
    "INSERT INTO items (grp, tag, n) VALUES (?, 't' || ?, 1) \
     ON CONFLICT (tag) DO UPDATE SET n = n + 5 RETURNING id || ',' || n AS r",
];

/// Statements of which the application sees how many rows they change.
const WRITES: [&str; 28] = [
    "UPDATE kv SET v = v + ? WHERE k = ?",
    "UPDATE kv SET v = ? WHERE k = ?",
    "UPDATE kv SET v = v - 1",
    "INSERT INTO kv VALUES (?, ?)",
    "INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = kv.v + excluded.v",
    "DELETE FROM kv WHERE k = ?",
    "INSERT INTO items (id, grp, tag, n) VALUES (?, ?, 't' || ?, ?)",
    "INSERT INTO items (grp, tag) VALUES (?, 't' || ?)",
    "INSERT INTO items (grp, n) VALUES (?, ?)",
    "INSERT OR IGNORE INTO items (grp, tag) VALUES (?, 't' || ?)",
    "INSERT OR REPLACE INTO items (grp, tag, n) VALUES (?, 't' || ?, ?)",
    "REPLACE INTO items (id, grp, n) VALUES (?, ?, ?)",
    "INSERT OR FAIL INTO items (grp, tag) VALUES (?, NULL), (?, 't' || ?), (1, 't5')",
    "INSERT OR ROLLBACK INTO items (id, grp) VALUES (? + 3, ?)",
    "INSERT INTO items (grp, n) SELECT grp + 1, n FROM items WHERE grp = ? LIMIT 2",
    "UPDATE items SET n = n + ? WHERE grp = ?",
    "UPDATE items SET n = n + 7 WHERE grp = ?",
    "UPDATE items SET grp = (SELECT v % 4 FROM kv WHERE k = ?) WHERE id = ?",
    "DELETE FROM items WHERE n > ? + 2",
    "DELETE FROM items WHERE id = (SELECT max(id) FROM items)",
    "INSERT INTO auto (note) VALUES ('n' || ?)",
    "INSERT INTO auto (id, note) VALUES (? * 3, 'own')",
    "DELETE FROM auto",
    "INSERT INTO pairs VALUES ('a' || ?, ?, ?)",
    "UPDATE pairs SET c = c + 1 WHERE b <= ?",
    "INSERT INTO totals (grp, s) VALUES (?, ?)",
    "UPDATE kv SET v = (SELECT count(*) FROM items) WHERE k = ?",
    "INSERT INTO log (what) SELECT 'sum ' || sum(v) FROM kv",
];

/// One step of a transaction.
#[derive(Debug, Clone)]
enum Step {
    Read(&'static str, Vec<i32>),
    Returning(&'static str, Vec<i32>),
    /// With the question for `changes()` and `last_insert_rowid()` after it, if it succeeds.
    Write(&'static str, Vec<i32>, Option<&'static str>),
    /// SAVEPOINT, RELEASE and ROLLBACK TO.
    Control(String),
    /// Marks the transaction.
    Mark(i32),
}

/// How a transaction ends, if the application can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

#[derive(Debug, Clone)]
struct Program {
    begin: &'static str,
    steps: Vec<Step>,
    end: End,
}

/// A transaction that has committed, with what its application saw.
#[derive(Debug, Clone)]
struct Committed {
    program: Program,
    /// `None` for one that only reads.
    number: Option<i32>,
    seen: Vec<String>,
}

fn parameters(sql: &str) -> impl Strategy<Value = Vec<i32>> + use<> {
    let count = sql.matches('?').count();
    prop::collection::vec(0..5_i32, count)
}

fn one_of(all: &'static [&'static str]) -> impl Strategy<Value = (&'static str, Vec<i32>)> {
    sample::select(all).prop_flat_map(|sql| (Just(sql), parameters(sql)))
}

fn read() -> impl Strategy<Value = Step> {
    one_of(&READS).prop_map(|(sql, params)| Step::Read(sql, params))
}

fn step() -> impl Strategy<Value = Step> {
    let asks = prop_oneof![
        8 => Just(None),
        1 => Just(Some("SELECT '' || changes() AS r")),
        1 => Just(Some("SELECT changes() || ',' || last_insert_rowid() AS r")),
    ];
    let control = (sample::select(&["SAVEPOINT", "RELEASE", "ROLLBACK TO"][..]), 0..2_u8)
        .prop_map(|(verb, name)| Step::Control(format!("{verb} s{name}")));
    prop_oneof![
        8 => read(),
        2 => one_of(&RETURNING).prop_map(|(sql, params)| Step::Returning(sql, params)),
        8 => (one_of(&WRITES), asks).prop_map(|((sql, params), ask)| {
            // Where nothing is inserted, SQLite tells of a row before the transaction.
            let inserts = sql.starts_with("INSERT INTO items") && sql.contains("VALUES");
            let ask = ask.filter(|ask| inserts || !ask.contains("rowid"));
            Step::Write(sql, params, ask)
        }),
        3 => control,
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let begin = prop_oneof![
        8 => Just("BEGIN"),
        2 => Just("BEGIN IMMEDIATE"),
        1 => Just("SAVEPOINT outer_one"),
    ];
    let end = prop_oneof![7 => Just(End::Commit), 1 => Just(End::Rollback)];
    let writes =
        (prop::collection::vec(step(), 0..9), any::<bool>()).prop_map(|(mut steps, last)| {
            let at = if last { steps.len() } else { 0 };
            if last {
                // Outside of all savepoints that could be rolled back.
                steps.push(Step::Mark(0));
            } else {
                steps.insert(at, Step::Mark(0));
            }
            steps
        });
    let reads = prop::collection::vec(read(), 1..4);
    (begin, prop_oneof![4 => writes, 1 => reads], end).prop_map(|(begin, steps, end)| Program {
        begin,
        steps,
        end,
    })
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    r: String,
}

fn load<C>(conn: &mut C, sql: &str, params: &[i32]) -> QueryResult<Vec<String>>
where
    C: LoadConnection + Connection<Backend = Sqlite>,
{
    let query = params
        .iter()
        .fold(diesel::sql_query(sql).into_boxed::<Sqlite>(), |q, p| q.bind::<Integer, _>(*p));
    let rows: Vec<Row> = query.load(conn)?;
    let mut rows: Vec<_> = rows.into_iter().map(|row| row.r).collect();
    if !sql.contains("ORDER BY") {
        rows.sort();
    }
    Ok(rows)
}

fn change<C>(conn: &mut C, sql: &str, params: &[i32]) -> QueryResult<usize>
where
    C: LoadConnection + Connection<Backend = Sqlite>,
{
    params
        .iter()
        .fold(diesel::sql_query(sql).into_boxed::<Sqlite>(), |q, p| q.bind::<Integer, _>(*p))
        .execute(conn)
}

/// What the application sees of a step. `Err`: the transaction is over.
fn run<C>(conn: &mut C, step: &Step) -> Result<String, Error>
where
    C: LoadConnection + Connection<Backend = Sqlite>,
{
    match step {
        Step::Read(sql, params) | Step::Returning(sql, params) => said(load(conn, sql, params)),
        Step::Write(sql, params, ask) => {
            let result = change(conn, sql, params);
            let asks = ask.filter(|_| result.is_ok());
            let mut seen = said(result)?;
            if let Some(ask) = asks {
                let _ = write!(seen, " {}", said(load(conn, ask, &[]))?);
            }
            Ok(seen)
        }
        Step::Control(sql) => said(conn.batch_execute(sql)),
        Step::Mark(number) => {
            said(change(conn, "INSERT INTO marker (number) VALUES (?)", &[*number]))
        }
    }
}

fn said<T: std::fmt::Debug>(result: QueryResult<T>) -> Result<String, Error> {
    match result {
        Ok(value) => Ok(format!("{value:?}")),
        Err(error) if Failure::of(&error).is_some() => Err(error),
        Err(Error::DatabaseError(kind, information)) => {
            Ok(format!("{kind:?}: {}", information.message()))
        }
        Err(error) => Ok(format!("{error:?}")),
    }
}

/// What became of the transactions of one connection.
#[derive(Debug, Default)]
struct History {
    committed: VecDeque<Committed>,
    conflicts: usize,
}

/// Runs programs on one connection, each until it commits, but at most three times.
fn run_all(conn: &mut LiteFsConnection, programs: &[Program], numbers: i32) -> History {
    let mut history = History::default();
    let mut number = numbers;
    for program in programs {
        for _ in 0..3 {
            number += 1;
            let mut program = program.clone();
            let mut mark = None;
            for step in &mut program.steps {
                if let Step::Mark(at) = step {
                    *at = number;
                    mark = Some(number);
                }
            }
            match attempt(conn, &program) {
                Ok(Some(seen)) => {
                    history.committed.push_back(Committed { program, number: mark, seen });
                    break;
                }
                Ok(None) => break,
                Err(error) => {
                    history.conflicts += 1;
                    let failure = Failure::of(&error);
                    let expected =
                        matches!(failure, Some(Failure::SnapshotMoved | Failure::TransactionLost));
                    assert!(expected, "{error:?} in {program:?}");
                }
            }
        }
    }
    history
}

/// `None`: rolled back, by the application or by SQLite.
fn attempt(conn: &mut LiteFsConnection, program: &Program) -> Result<Option<Vec<String>>, Error> {
    conn.batch_execute(program.begin)?;
    let mut seen = Vec::new();
    for step in &program.steps {
        match run(conn, step) {
            Ok(result) => seen.push(result),
            Err(error) => {
                let _ = conn.batch_execute("ROLLBACK");
                return Err(error);
            }
        }
        std::thread::yield_now();
    }
    if program.end == End::Rollback {
        // SQLite may have rolled back already.
        let _ = conn.batch_execute("ROLLBACK");
        return Ok(None);
    }
    let end = if program.begin.starts_with("SAVEPOINT") { "RELEASE outer_one" } else { "COMMIT" };
    match conn.batch_execute(end) {
        Ok(()) => Ok(Some(seen)),
        Err(error) => {
            let _ = conn.batch_execute("ROLLBACK");
            if Failure::of(&error).is_some() { Err(error) } else { Ok(None) }
        }
    }
}

/// Runs a committed transaction on plain SQLite. Returns the first difference.
fn rerun(plain: &mut SqliteConnection, one: &Committed, end: &str) -> Result<(), String> {
    plain.batch_execute(one.program.begin).unwrap();
    let mut difference = Ok(());
    for (step, seen) in one.program.steps.iter().zip(&one.seen) {
        let now = run(plain, step).unwrap_or_else(|error| format!("{error:?}"));
        if now != *seen {
            difference = Err(format!("{step:?}\n  saw    {seen}\n  serial {now}"));
            break;
        }
    }
    let end = if difference.is_err() { "ROLLBACK" } else { end };
    let ended = plain.batch_execute(end);
    difference.and_then(|()| ended.map_err(|error| format!("{end}: {error}")))
}

/// Looks for the serial order. `order`: the numbers of the markers.
fn check(
    mut histories: Vec<VecDeque<Committed>>,
    order: &[i32],
    dump: &[String],
) -> Result<(), String> {
    let mut plain = SqliteConnection::establish(":memory:").unwrap();
    plain.batch_execute(SCHEMA).unwrap();
    plain.batch_execute(DATA).unwrap();
    for next in order.iter().map(Some).chain([None]) {
        let mut unmatched = String::new();
        for history in &mut histories {
            while let Some(head) = history.front().filter(|head| head.number.is_none()) {
                match rerun(&mut plain, head, "ROLLBACK") {
                    Ok(()) => drop(history.pop_front()),
                    Err(difference) => {
                        let _ = writeln!(unmatched, "{head:?}\n  {difference}");
                        break;
                    }
                }
            }
        }
        let Some(next) = next else { break };
        let is_next = |head: &Committed| head.number == Some(*next);
        let Some(history) = histories.iter_mut().find(|h| h.front().is_some_and(is_next)) else {
            return Err(format!(
                "transaction {next} does not come next on any connection; reads that match no \
                 state so far:\n{unmatched}"
            ));
        };
        let one = history.pop_front().expect("its head");
        let end =
            if one.program.begin.starts_with("SAVEPOINT") { "RELEASE outer_one" } else { "COMMIT" };
        rerun(&mut plain, &one, end).map_err(|difference| format!("{one:#?}\n{difference}"))?;
    }
    if let Some(left) = histories.iter().find_map(VecDeque::front) {
        return Err(format!("not in the order of the markers {order:?}: {left:#?}"));
    }
    let serial = load(&mut plain, DUMP, &[]).unwrap();
    if serial != dump {
        return Err(format!("the data differ:\n{dump:#?}\nserial:\n{serial:#?}"));
    }
    Ok(())
}

/// One case. Returns the committed transactions and the conflicts.
fn case(test: &TestCluster, seed: u64) -> (usize, usize) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let of_one = prop::collection::vec(program(), 4..8);
    let programs = prop::collection::vec(of_one, 5).new_tree(&mut runner).unwrap().current();

    test.conn("a").batch_execute(DATA).unwrap();
    test.sync();
    let nodes = ["a", "b", "b", "c", "d"];
    let histories: Vec<History> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0_i32..)
            .zip(nodes.iter().zip(&programs))
            .map(|(index, (node, programs))| {
                let mut conn = test.conn(node);
                scope.spawn(move || run_all(&mut conn, programs, (index + 1) * 1_000))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    test.sync();
    let mut plain = test.plain("a");
    let order = load(&mut plain, "SELECT '' || number AS r FROM marker ORDER BY id", &[]).unwrap();
    let order: Vec<i32> = order.iter().map(|number| number.parse().unwrap()).collect();
    let dump = load(&mut plain, DUMP, &[]).unwrap();
    for replica in ["b", "c", "d"] {
        assert_eq!(load(&mut test.plain(replica), DUMP, &[]).unwrap(), dump);
    }
    let conflicts = histories.iter().map(|history| history.conflicts).sum();
    let committed: Vec<_> = histories.into_iter().map(|history| history.committed).collect();
    let count = committed.iter().map(VecDeque::len).sum();
    if let Err(violation) = check(committed.clone(), &order, &dump) {
        panic!("seed {seed}: {violation}\norder: {order:?}\nhistories: {committed:#?}");
    }
    (count, conflicts)
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn x17_every_history_of_random_programs_is_serializable() {
    let test = TestCluster::configured(&["a", "b", "c", "d"], |name, builder| match name {
        "d" => builder.transactions(TransactionMode::Immediate),
        _ => builder,
    });
    test.schema(SCHEMA);
    let seed = from_environment("LITEFS_X17_SEED", 17);
    let cases = from_environment("LITEFS_X17_CASES", 40);
    let (mut committed, mut conflicts) = (0, 0);
    for seed in seed..seed + cases {
        let (more, refused) = case(&test, seed);
        committed += more;
        conflicts += refused;
    }
    eprintln!("{cases} cases from seed {seed}: {committed} committed, {conflicts} conflicts");
    assert!(committed > conflicts / 4);
}
