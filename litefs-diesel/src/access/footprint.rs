//! Which tables a statement touches and what in it only the primary can decide, from SQLite's
//! program for it.
//!
//! A transaction runs on a replica's snapshot only as far as the result of each statement there can
//! be the one on the primary. An automatic rowid, a random value or the time cannot.

use std::collections::{HashMap, HashSet};

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_rpc::sqlite::sql::{SqlStatement, TokenKind, Verb, statements, tokens};
use litefs_rpc::sqlite::{BoundQuery, value};
use litefs_rpc::wire::Value;

/// What one statement does, as far as a transaction on a replica's snapshot must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The root pages of the tables and indexes that it reads.
    reads: HashSet<i64>,
    /// The root pages of the tables and indexes that it writes.
    writes: HashSet<i64>,
    /// It inserts rows that get their rowids from SQLite.
    assigns_rowids: Assigns,
    /// It uses a random value, the time, or the counters of the connection.
    indeterminate: bool,
    /// It has no meaning on a replica's snapshot: virtual tables, other databases.
    unsuitable: bool,
    /// It reads what is in no table of the database: virtual tables, PRAGMAs.
    virtual_tables: bool,
    /// It inserts rows.
    inserts: bool,
    /// Triggers run in it.
    triggers: bool,
    /// Its text chooses among rows: a query within it, or a conflict clause.
    chooses: bool,
}

/// Which rows get their rowids from SQLite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Assigns {
    #[default]
    None,
    /// Those for which one of these parameters, counted from 1, is NULL.
    IfNull(HashSet<usize>),
    All,
}

impl Footprint {
    /// Asks SQLite for its program (<https://www.sqlite.org/opcode.html>).
    pub(crate) fn of(connection: &mut SqliteConnection, sql: &str) -> QueryResult<Self> {
        let text = format!("EXPLAIN {sql}");
        let chooses =
            tokens(sql).any(|token| ["SELECT", "CONFLICT", "OR"].iter().any(|word| token.is(word)));
        let mut reader = Reader { now: asks_for_now(sql), ..Reader::default() };
        for row in connection.load(BoundQuery::new(&text, &[], false))? {
            let row = row?;
            let column = |index: usize| diesel::row::Row::get(&row, index).map(|f| value(&f));
            let number = |index: usize| match column(index) {
                Some(Value::Integer(integer)) => integer,
                _ => 0,
            };
            let Some(Value::Text(opcode)) = column(1) else { continue };
            let p4 = match column(5) {
                Some(Value::Text(p4)) => p4,
                _ => String::new(),
            };
            reader.read(&Instruction { opcode, p: [number(2), number(3), number(4)], p4 });
        }
        let all = statements(sql);
        let inserts = all.first().is_some_and(SqlStatement::inserts);
        reader.footprint.virtual_tables |= all.iter().any(|s| s.verb() == Verb::Pragma);
        Ok(Self { chooses, inserts, ..reader.finish() })
    }

    /// Whether its result is the same whatever the database holds.
    pub(crate) fn touches_nothing(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty() && !self.virtual_tables
    }

    /// Whether the primary alone can run it.
    pub(crate) fn is_unsuitable(&self) -> bool {
        self.unsuitable
    }

    /// Whether its rows, if it returns some, may show what the primary would have decided
    /// otherwise.
    pub(crate) fn shows_what_only_the_primary_decides(&self, params: &[Value]) -> bool {
        self.indeterminate || self.assigns(params)
    }

    /// Whether it inserts rows.
    pub(crate) fn inserts(&self) -> bool {
        self.inserts
    }

    /// Whether it comes to something else each time it runs.
    pub(crate) fn is_indeterminate(&self) -> bool {
        self.indeterminate
    }

    /// Whether a row gets its rowid from SQLite, with these parameters.
    pub(crate) fn assigns(&self, params: &[Value]) -> bool {
        match &self.assigns_rowids {
            Assigns::None => false,
            Assigns::All => true,
            Assigns::IfNull(indexes) => indexes
                .iter()
                .any(|index| params.get(index - 1).is_none_or(|value| *value == Value::Null)),
        }
    }

    /// Whether the number of rows that it changes is certain, whatever the database holds: an
    /// INSERT of values that either inserts them all or fails.
    pub(crate) fn is_certain(&self) -> bool {
        self.inserts && !self.chooses && !self.triggers && !self.unsuitable
    }

    /// Whether what it does depends on the rows of one of these tables.
    pub(crate) fn reads_any(&self, roots: &HashSet<i64>) -> bool {
        // UPDATE and DELETE look for their rows in what they have opened to write.
        let looks = !self.inserts || self.chooses;
        !self.reads.is_disjoint(roots) || (looks && !self.writes.is_disjoint(roots))
    }

    /// The tables whose contents the primary may decide otherwise, once this has run.
    pub(crate) fn written_otherwise(&self, params: &[Value]) -> impl Iterator<Item = i64> {
        let otherwise = self.shows_what_only_the_primary_decides(params);
        self.writes.iter().copied().filter(move |_| otherwise)
    }
}

struct Instruction {
    opcode: String,
    p: [i64; 3],
    p4: String,
}

/// Reads a program, instruction by instruction.
#[derive(Default)]
struct Reader {
    footprint: Footprint,
    /// What was last loaded into a register.
    loaded: HashMap<i64, Loaded>,
    /// A date function is called.
    dates: bool,
    /// The text 'now' is among the constants, or a date function is called with nothing.
    now: bool,
}

#[derive(Clone, Copy)]
enum Loaded {
    Parameter(usize),
    Constant,
}

/// The opcodes that call a function, with its name in P4: `name(arguments)`.
pub(super) const CALLS: [&str; 7] =
    ["Function", "PureFunc", "AggStep", "AggStep1", "AggInverse", "AggValue", "AggFinal"];

/// The functions whose result depends on the moment or on the connection.
const INDETERMINATE: [&str; 8] = [
    "random",
    "randomblob",
    "current_date",
    "current_time",
    "current_timestamp",
    "last_insert_rowid",
    "changes",
    "total_changes",
];

/// The functions that give the time where they are asked for 'now' or for nothing, see
/// <https://www.sqlite.org/lang_datefunc.html>.
const DATES: [&str; 7] =
    ["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"];

/// Whether the text calls a date function without arguments, which the program does not show.
fn asks_for_now(sql: &str) -> bool {
    let all: Vec<_> = tokens(sql).collect();
    all.windows(3).any(|three| {
        DATES.iter().any(|date| three[0].is(date))
            && three[1].kind == TokenKind::Open
            && three[2].kind == TokenKind::Close
    })
}

impl Reader {
    fn read(&mut self, instruction: &Instruction) {
        let Instruction { opcode, p: [p1, p2, p3], p4 } = instruction;
        match opcode.as_str() {
            "Transaction" => self.footprint.unsuitable |= *p1 != 0,
            "OpenRead" | "ReopenIdx" => self.open(*p2, *p3, false),
            "OpenWrite" => self.open(*p2, *p3, true),
            "Clear" => self.open(*p1, *p2, true),
            "VUpdate" | "VCreate" | "VDestroy" | "VBegin" | "ParseSchema" | "CreateBtree"
            | "Destroy" | "SetCookie" | "Vacuum" | "JournalMode" => {
                self.footprint.unsuitable = true;
            }
            "VOpen" => self.footprint.virtual_tables = true,
            "Program" => self.footprint.triggers = true,
            "Variable" => {
                let parameter = usize::try_from(*p1).unwrap_or_default();
                self.loaded.insert(*p2, Loaded::Parameter(parameter));
            }
            "Integer" | "Int64" | "Real" | "String8" | "Blob" => {
                self.now |= opcode == "String8" && p4.eq_ignore_ascii_case("now");
                self.loaded.insert(*p2, Loaded::Constant);
            }
            "NewRowid" => self.assign(*p2),
            call if CALLS.contains(&call) => self.call(p4),
            "SCopy" | "Copy" | "Move" | "Null" | "Column" | "Rowid" => {
                self.loaded.remove(p2);
            }
            _ => {}
        }
    }

    fn open(&mut self, root: i64, database: i64, write: bool) {
        self.footprint.unsuitable |= database != 0;
        let roots = if write { &mut self.footprint.writes } else { &mut self.footprint.reads };
        roots.insert(root);
    }

    fn assign(&mut self, register: i64) {
        match self.loaded.get(&register) {
            // SQLite checks the value and keeps it unless it is NULL.
            Some(Loaded::Constant) => {}
            Some(Loaded::Parameter(index)) if *index > 0 => {
                if let Assigns::None = self.footprint.assigns_rowids {
                    self.footprint.assigns_rowids = Assigns::IfNull(HashSet::new());
                }
                if let Assigns::IfNull(indexes) = &mut self.footprint.assigns_rowids {
                    indexes.insert(*index);
                }
            }
            _ => self.footprint.assigns_rowids = Assigns::All,
        }
    }

    fn call(&mut self, p4: &str) {
        let name = p4.split('(').next().unwrap_or_default().to_ascii_lowercase();
        self.footprint.indeterminate |= INDETERMINATE.contains(&name.as_str());
        self.dates |= DATES.contains(&name.as_str());
    }

    fn finish(mut self) -> Footprint {
        self.footprint.indeterminate |= self.dates && self.now;
        self.footprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::connection::{Connection, SimpleConnection};

    fn connection() -> SqliteConnection {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE INDEX tx ON t(x);
             CREATE TABLE k(a TEXT PRIMARY KEY, b) WITHOUT ROWID;
             CREATE TABLE stamped(id INTEGER PRIMARY KEY, at DEFAULT CURRENT_TIMESTAMP);
             CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, what);
             CREATE TABLE source(id INTEGER PRIMARY KEY, x);
             CREATE TRIGGER logged AFTER INSERT ON source BEGIN
                 INSERT INTO log(what) VALUES (new.x); END;
             CREATE VIRTUAL TABLE f USING fts5(body);
             CREATE TEMP TABLE tmp(x)",
        )
        .unwrap();
        conn
    }

    fn of(sql: &str) -> Footprint {
        Footprint::of(&mut connection(), sql).unwrap()
    }

    #[test]
    fn rowids_that_sqlite_assigns_are_seen() {
        let (null, one) = (Value::Null, Value::Integer(1));
        for (sql, params, assigns) in [
            ("INSERT INTO t(x) VALUES (?)", vec![one.clone()], true),
            ("INSERT INTO t(id, x) VALUES (?, ?)", vec![one.clone(), null.clone()], false),
            ("INSERT INTO t(id, x) VALUES (?, ?)", vec![null.clone(), one.clone()], true),
            ("INSERT INTO t(id, x) VALUES (7, ?)", vec![null.clone()], false),
            ("INSERT INTO t(id, x) VALUES (NULL, ?)", vec![one.clone()], true),
            ("INSERT INTO t(x) SELECT x FROM source", vec![], true),
            ("INSERT INTO k VALUES (?, ?)", vec![one.clone(), one.clone()], false),
            ("UPDATE t SET x = ? WHERE id = 1", vec![one.clone()], false),
            ("INSERT INTO source(id, x) VALUES (?, ?)", vec![one.clone(), one.clone()], true),
        ] {
            assert_eq!(of(sql).assigns(&params), assigns, "{sql} {params:?}");
        }
    }

    #[test]
    fn what_depends_on_the_moment_is_seen() {
        for (sql, depends) in [
            ("SELECT * FROM t", false),
            ("SELECT random()", true),
            ("SELECT datetime('now')", true),
            ("SELECT datetime()", true),
            ("SELECT date(x) FROM t", false),
            ("SELECT CURRENT_TIMESTAMP", true),
            ("INSERT INTO stamped(id) VALUES (1)", true),
            ("INSERT INTO stamped(id, at) VALUES (1, 2)", false),
            ("UPDATE t SET x = changes()", true),
        ] {
            let shows = of(sql).shows_what_only_the_primary_decides(&[]);
            assert_eq!(shows, depends, "{sql}");
        }
    }

    #[test]
    fn what_has_no_meaning_on_a_snapshot_is_unsuitable() {
        for (sql, unsuitable) in [
            ("SELECT * FROM t", false),
            ("SELECT * FROM f WHERE f MATCH 'a'", false),
            ("INSERT INTO f VALUES ('a')", true),
            ("INSERT INTO t(x) SELECT x FROM tmp", true),
            ("CREATE TABLE u(x)", true),
            ("DELETE FROM t", false),
        ] {
            assert_eq!(of(sql).is_unsuitable(), unsuitable, "{sql}");
        }
    }

    #[test]
    fn only_an_insert_of_values_changes_a_certain_number_of_rows() {
        for (sql, certain) in [
            ("INSERT INTO t(x) VALUES (1)", true),
            ("INSERT INTO t(x) VALUES (1), (2)", true),
            ("INSERT INTO t(x) SELECT 1", false),
            ("INSERT OR IGNORE INTO t(x) VALUES (1)", false),
            ("INSERT INTO t(id) VALUES (1) ON CONFLICT DO NOTHING", false),
            ("INSERT INTO source(x) VALUES (1)", false),
            ("SELECT 1", false),
        ] {
            assert_eq!(of(sql).is_certain(), certain, "{sql}");
        }
        // These change as many rows as they find.
        for sql in ["UPDATE t SET x = 1", "DELETE FROM t WHERE x = 1"] {
            assert!(of(sql).reads_any(&of("INSERT INTO t(x) VALUES (1)").writes), "{sql}");
        }
    }

    #[test]
    fn a_reader_of_a_written_table_is_found() {
        let written: HashSet<_> =
            of("INSERT INTO t(x) VALUES (1)").written_otherwise(&[]).collect();
        for (sql, reads) in [
            ("SELECT * FROM t", true),
            ("SELECT x FROM t WHERE x = 1", true),
            ("SELECT * FROM source", false),
            ("INSERT INTO t(x) VALUES (2)", false),
            ("INSERT INTO source SELECT * FROM t", true),
            ("UPDATE t SET x = 2 WHERE id = 1", true),
            ("DELETE FROM t", true),
            ("UPDATE source SET x = 2", false),
        ] {
            assert_eq!(of(sql).reads_any(&written), reads, "{sql}");
        }
        assert_eq!(of("INSERT INTO k VALUES (1, 2)").written_otherwise(&[]).count(), 0);
    }
}
