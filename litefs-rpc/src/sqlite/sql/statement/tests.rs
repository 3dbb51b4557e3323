//! Tests of the statements.

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use proptest::prelude::*;

use super::*;

fn verb(sql: &str) -> Verb {
    statements(sql)[0].verb()
}

fn split(sql: &str) -> Vec<&str> {
    statements(sql).iter().map(|s| s.sql).collect()
}

#[test]
fn statements_end_at_semicolons_outside_strings_and_comments() {
    assert_eq!(
        split("SELECT ';'; -- x;\n INSERT INTO t VALUES(1) ; ;"),
        ["SELECT ';'", "INSERT INTO t VALUES(1)"]
    );
    assert_eq!(split(" ; -- nothing\n"), Vec::<&str>::new());
}

#[test]
fn a_trigger_is_one_statement() {
    let trigger = "CREATE TEMP TRIGGER a AFTER INSERT ON t BEGIN \
                   UPDATE t SET x = CASE WHEN 1 THEN 2 END; DELETE FROM u; END";
    assert_eq!(split(&format!("{trigger}; SELECT 1")), [trigger, "SELECT 1"]);
}

#[test]
fn verbs() {
    for (sql, expected) in [
        ("select 1", Verb::Read),
        ("VALUES (1)", Verb::Read),
        ("EXPLAIN DELETE FROM t", Verb::Read),
        ("EXPLAIN PRAGMA foreign_keys = ON", Verb::Pragma),
        ("EXPLAIN QUERY PLAN PRAGMA foreign_keys = ON", Verb::Pragma),
        ("EXPLAIN QUERY PLAN SELECT 1", Verb::Read),
        ("EXPLAIN", Verb::Read),
        ("/* c */ INSERT INTO t VALUES (1)", Verb::Change),
        ("WITH a AS (DELETE) SELECT 1", Verb::Read),
        ("WITH a AS (SELECT 1), b(x) AS (VALUES(2)) INSERT INTO t SELECT * FROM a", Verb::Change),
        ("REPLACE INTO t VALUES (1)", Verb::Change),
        ("CREATE TABLE t(x)", Verb::Schema),
        ("create temporary table t(x)", Verb::TempSchema),
        ("VACUUM", Verb::Vacuum),
        ("VACUUM INTO 'x'", Verb::VacuumInto),
        ("ROLLBACK", Verb::Rollback),
        ("ROLLBACK TO SAVEPOINT a", Verb::Savepoint),
        ("END TRANSACTION", Verb::Commit),
        ("ATTACH 'x' AS y", Verb::Attach),
        ("(SELECT 1)", Verb::Unknown),
        ("nonsense", Verb::Unknown),
    ] {
        assert_eq!(verb(sql), expected, "{sql}");
    }
}

#[test]
fn pragmas_are_taken_apart() {
    let pragma = |sql| statements(sql)[0].pragma().map(|p| (p.name, p.value));
    assert_eq!(pragma("PRAGMA foreign_keys"), Some(("foreign_keys", None)));
    assert_eq!(
        pragma("PRAGMA main.journal_mode = 'delete'"),
        Some(("journal_mode", Some("delete")))
    );
    assert_eq!(pragma("pragma cache_size(-2000)"), Some(("cache_size", Some("-2000"))));
    assert_eq!(pragma("EXPLAIN PRAGMA query_only = OFF"), Some(("query_only", Some("OFF"))));
    assert_eq!(
        pragma("PRAGMA locking_mode(exclusive /**/)"),
        Some(("locking_mode", Some("exclusive")))
    );
    assert_eq!(
        pragma("PRAGMA journal_mode /* to */ = /* x */ [delete] -- y"),
        Some(("journal_mode", Some("delete")))
    );
    assert_eq!(pragma("PRAGMA query_only = + 1"), Some(("query_only", Some("1"))));
    assert_eq!(
        pragma("\u{feff}PRAGMA\n\u{feff}query_only(\u{feff}ON)"),
        Some(("query_only", Some("ON")))
    );
    assert_eq!(pragma("SELECT 1"), None);
}

#[test]
fn created_names_are_found() {
    let created = |sql| statements(sql)[0].created_name();
    assert_eq!(created("CREATE TEMP TABLE IF NOT EXISTS a (x)"), Some("a"));
    assert_eq!(created("create temporary view temp.\"b c\" as select 1"), Some("b c"));
    assert_eq!(created("CREATE TABLE main.a (x)"), Some("a"));
    assert_eq!(created("DROP TABLE a"), None);
}

#[test]
fn pragmas_in_the_shape_of_tables_are_found() {
    let asks = |sql| statements(sql)[0].asks_a_pragma();
    assert!(asks("SELECT * FROM pragma_foreign_keys"));
    assert!(asks("SELECT 1 FROM t, \"PRAGMA_table_info\"('t')"));
    assert!(!asks("SELECT pragma, 'x pragma_' FROM pragmas"));
}

#[test]
fn function_calls_are_found_however_they_are_quoted() {
    let calls = |sql| statements(sql)[0].calls("load_extension");
    assert!(calls("SELECT load_extension('x')"));
    assert!(calls("SELECT \"LOAD_EXTENSION\" ('x')"));
    assert!(!calls("SELECT 'load_extension'"));
    assert!(!calls("SELECT load_extension FROM t"));
}

#[test]
fn schemas_are_found() {
    for (sql, expected) in [
        ("PRAGMA aux.user_version = 3", Some("aux")),
        ("PRAGMA user_version", None),
        ("VACUUM", None),
        ("VACUUM INTO 'x'", None),
        ("VACUUM \"aux\"", Some("aux")),
        ("VACUUM aux INTO 'x'", Some("aux")),
        ("INSERT OR IGNORE INTO [aux].t VALUES (1)", Some("aux")),
        ("WITH a AS (SELECT 1 FROM b.c) REPLACE INTO aux . t SELECT * FROM d.e", Some("aux")),
        ("INSERT INTO t SELECT * FROM aux.t", None),
        ("INSERT INTO temp SELECT * FROM aux.t", None),
        ("UPDATE OR ROLLBACK temp.t SET x = (SELECT y FROM main.u)", Some("temp")),
        ("DELETE FROM t WHERE x IN (SELECT y FROM aux.u)", None),
        ("CREATE UNIQUE INDEX IF NOT EXISTS aux.i ON t (x)", Some("aux")),
        ("CREATE TEMP TABLE temp.t (x)", Some("temp")),
        ("DROP TABLE IF EXISTS aux.t", Some("aux")),
        ("ALTER TABLE aux.t ADD COLUMN y", Some("aux")),
        ("REINDEX aux.t", Some("aux")),
        ("ANALYZE aux", None),
        ("SELECT * FROM aux.t", None),
    ] {
        assert_eq!(statements(sql)[0].schema(), expected, "{sql}");
    }
}

#[test]
fn objects_and_attached_schemas_are_found() {
    let object = |sql| statements(sql)[0].object_name();
    assert_eq!(object("INSERT INTO a SELECT * FROM b"), Some("a"));
    assert_eq!(object("DELETE FROM main.\"a b\""), Some("a b"));
    assert_eq!(object("ANALYZE aux"), Some("aux"));
    assert_eq!(object("REINDEX"), None);
    let attached = |sql| statements(sql)[0].attached_name();
    assert_eq!(attached("ATTACH DATABASE 'x AS y' AS 'aux' KEY 'k'"), Some("aux"));
    assert_eq!(attached("SELECT 1 AS x"), None);
}

#[test]
fn transaction_control_is_found_by_its_words() {
    let all =
        statements("BEGIN IMMEDIATE /* EXCLUSIVE */; SAVEPOINT/**/\"a\"; RELEASE/* SAVEPOINT */a");
    assert!(all[0].begins_with_lock() && !all[0].is_word(1, "EXCLUSIVE"));
    assert!(all[1].is_word(0, "SAVEPOINT") && all[2].is_word(0, "RELEASE"));
    assert_eq!((all[1].savepoint_name(), all[2].savepoint_name()), (Some("a"), Some("a")));
}

#[test]
fn semicolons_inside_parameters_and_after_byte_order_marks() {
    assert_eq!(
        split("\u{feff}SELECT $a(;);\u{feff}SELECT @b('x;)"),
        ["SELECT $a(;)", "SELECT @b('x;)"]
    );
    assert_eq!(split("SELECT $a( ;); ATTACH 'x' AS y"), ["SELECT $a(", ")", "ATTACH 'x' AS y"]);
}

/// Text that SQLite takes for nothing.
const BLANKS: [&str; 8] =
    [" ", "\n", "\u{feff}", " \u{b}", "/*;*/", "/**/", "--;\n", "/*'*/\u{feff}"];

/// Values that could be taken for something else, and a few that SQLite refuses.
const VALUES: [&str; 22] = [
    "1",
    ".5",
    "1.5e-3",
    "0xA",
    "1_0",
    "'a;b'",
    "'it''s;'",
    "x'00'",
    "?",
    "?7",
    ":a",
    "$a(;)",
    "@b::c(';)",
    "$d(\")",
    "(SELECT 1 AS [a;b])",
    "(SELECT 2 AS \"c;\"\";d\")",
    "(SELECT 3 `e;`)",
    "1e--5",
    "$f( ;)",
    "x'0;'",
    "'",
    "/*",
];

const TRIGGER: &str = "CREATE TRIGGER IF NOT EXISTS twice AFTER INSERT ON log WHEN new.x = '1' \
                       BEGIN INSERT INTO log VALUES (CASE WHEN 1 THEN ';END' END); \
                       DELETE FROM log WHERE 0; END";

fn a_statement() -> impl Strategy<Value = String> {
    let blank = || prop::sample::select(&BLANKS[..]);
    let insert = (blank(), blank(), prop::sample::select(&VALUES[..]), blank())
        .prop_map(|(a, b, value, c)| format!("{a}INSERT{b} INTO log VALUES({value}{c})"));
    let trigger =
        (blank(), blank()).prop_map(|(before, after)| format!("{before}{TRIGGER}{after}"));
    prop_oneof![8 => insert, 1 => trigger, 1 => blank().prop_map(str::to_owned)]
}

/// What `run` leaves in the table, and whether it failed.
fn outcome(run: impl FnOnce(&mut SqliteConnection) -> QueryResult<()>) -> (Vec<String>, bool) {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.batch_execute("CREATE TABLE log (x)").unwrap();
    let failed = run(&mut conn).is_err();
    let rows =
        diesel::dsl::sql::<diesel::sql_types::Text>("SELECT quote(x) FROM log ORDER BY rowid");
    (rows.load(&mut conn).unwrap(), failed)
}

proptest! {
    #[test]
    fn statements_end_where_sqlite_ends_them(parts in prop::collection::vec(a_statement(), 1..6)) {
        let script = parts.join(";");
        let one_by_one = outcome(|conn| {
            statements(&script).iter().try_for_each(|statement| conn.batch_execute(statement.sql))
        });
        prop_assert_eq!(one_by_one, outcome(|conn| conn.batch_execute(&script)), "{}", script);
    }
}
