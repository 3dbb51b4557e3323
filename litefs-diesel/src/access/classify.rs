//! The pure half: from a statement's beginning and SQLite's program for it to its class.

use litefs_rpc::sqlite::sql::{Pragma, SqlStatement, Verb};
use litefs_rpc::wire::BeginMode;

use super::Access;

/// What the rest of the library needs to know of a statement; cached, so it is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) access: Access,
    /// It writes to a temporary or attached database: `query_only` must be lifted, and cached
    /// classes may be wrong afterwards.
    pub(crate) writes_locally: bool,
    /// It sets a PRAGMA that forwarded writes must follow.
    pub(crate) sets_session: bool,
    /// `changes()` counts what it does.
    pub(crate) counts: bool,
    /// It inserts rows: `last_insert_rowid()` is its own.
    pub(crate) inserts: bool,
    /// It asks for `last_insert_rowid()`, `changes()` or `total_changes()`.
    pub(crate) asks_session: bool,
    /// It opens, closes or marks a transaction.
    pub(crate) control: bool,
    /// It is `PRAGMA query_only`, which this library uses itself: the user's is kept apart from
    /// ours.
    pub(crate) query_only: bool,
    /// It must not run under LiteFS.
    pub(crate) refused: bool,
    /// It changes the database by what is in a temporary or attached one, or both at once: it runs
    /// where both are, or nowhere.
    pub(crate) split: bool,
    /// It is a VACUUM that stays here: of an attached database, or INTO a file. No transaction may
    /// be open.
    pub(crate) vacuums: bool,
    /// It copies the database into a file of this node: VACUUM INTO.
    pub(crate) copies: bool,
    /// There is nothing to run, or more than one statement.
    pub(crate) single: bool,
    /// SQLite could not prepare it here; the class is a guess that must not outlive the moment.
    pub(crate) guessed: bool,
    /// It calls a function that the application has registered, which may write.
    pub(crate) calls_application: bool,
}

impl Class {
    const fn new(access: Access) -> Self {
        Self {
            access,
            writes_locally: false,
            sets_session: false,
            counts: false,
            inserts: false,
            asks_session: false,
            control: false,
            query_only: false,
            refused: false,
            split: false,
            vacuums: false,
            copies: false,
            single: true,
            guessed: false,
            calls_application: false,
        }
    }

    /// It writes to a temporary or attached database, and to nothing else.
    const LOCAL_WRITE: Self = Self { writes_locally: true, ..Self::new(Access::Local) };

    /// SQL text without a statement, or with several: SQLite prepares the first and ignores the
    /// rest.
    pub(crate) const NOTHING: Self = Self { single: false, ..Self::new(Access::Local) };

    /// What two statements are that run in one place.
    pub(crate) fn with(self, other: Self) -> Self {
        let access = match (self.access, other.access) {
            (Access::Write, _) | (_, Access::Write) => Access::Write,
            (Access::Read, _) | (_, Access::Read) => Access::Read,
            _ => Access::Local,
        };
        let writes_locally = self.writes_locally || other.writes_locally;
        Self {
            access,
            writes_locally,
            sets_session: self.sets_session || other.sets_session,
            counts: self.counts || other.counts,
            inserts: self.inserts || other.inserts,
            asks_session: self.asks_session || other.asks_session,
            control: self.control || other.control,
            query_only: self.query_only || other.query_only,
            refused: self.refused || other.refused,
            split: self.split || other.split || (access == Access::Write && writes_locally),
            vacuums: self.vacuums || other.vacuums,
            copies: self.copies || other.copies,
            single: self.single && other.single,
            guessed: self.guessed || other.guessed,
            calls_application: self.calls_application || other.calls_application,
        }
    }

    /// It reads as far as SQLite can tell, but what it calls may write.
    pub(crate) fn may_write(&self) -> bool {
        self.access == Access::Read && self.calls_application
    }

    /// It reads the database and that is all there is to it.
    #[inline]
    pub(crate) fn is_plain_read(&self) -> bool {
        self.access == Access::Read
            && !self.asks_session
            && !self.refused
            && self.single
            && !self.calls_application
    }
}

/// Which databases a program touches, read from its `Transaction` opcodes
/// (<https://www.sqlite.org/opcode.html#Transaction>): P1 is the database (0 main, 1 temp, then
/// attached), P2 is not zero for a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) reads_main: bool,
    pub(super) writes_main: bool,
    pub(super) touches_other: bool,
    pub(super) writes_other: bool,
    /// It calls a function of the application.
    pub(super) calls_application: bool,
}

/// The functions whose answer depends on the connection's last write.
const SESSION_FUNCTIONS: [&str; 3] = ["last_insert_rowid", "changes", "total_changes"];

/// The class of one statement. `program` is `None` where SQLite could not or must not prepare it
/// here.
pub(super) fn classify(statement: &SqlStatement<'_>, program: Option<Program>) -> Class {
    let verb = statement.verb();
    let mut class = match (verb, program) {
        (Verb::Pragma, _) => {
            statement.pragma().map_or(Class::new(Access::Local), |pragma| of_pragma(&pragma))
        }
        (Verb::Begin | Verb::Commit | Verb::Rollback | Verb::Savepoint, _) => {
            Class { control: true, ..Class::new(Access::Local) }
        }
        (Verb::Attach | Verb::Detach, _) => Class::LOCAL_WRITE,
        (Verb::Vacuum, _) if !is_elsewhere(statement.schema()) => Class::new(Access::Write),
        (Verb::Vacuum | Verb::VacuumInto, _) => {
            let copies = !is_elsewhere(statement.schema());
            Class { vacuums: true, copies, ..Class::LOCAL_WRITE }
        }
        // ALTER TABLE and DROP TABLE also look through the temporary schema for what refers to the
        // table.
        (Verb::Schema, Some(Program { writes_main: true, .. })) => Class::new(Access::Write),
        // `IF (NOT) EXISTS` on an attached database that has it, or not, already.
        (
            Verb::Schema,
            Some(Program { touches_other: true, reads_main: false, writes_main: false, .. }),
        ) => Class::LOCAL_WRITE,
        // `IF (NOT) EXISTS` may be a no-op on this file and none on the primary's.
        (Verb::Schema, Some(Program { writes_main: false, writes_other: false, .. })) => {
            Class::new(Access::Write)
        }
        (_, Some(program)) => of_program(program),
        (verb, None) => of_verb(verb, statement.schema()),
    };
    class.counts = verb == Verb::Change;
    class.inserts = statement.inserts();
    class.asks_session = SESSION_FUNCTIONS.iter().any(|function| statement.calls(function));
    class.query_only =
        statement.pragma().is_some_and(|pragma| pragma.name.eq_ignore_ascii_case("query_only"));
    class.refused = litefs_rpc::sqlite::refused_under_litefs(statement).is_some();
    class
}

fn of_program(program: Program) -> Class {
    if program.writes_main {
        let (writes_locally, split) = (program.writes_other, program.touches_other);
        return Class { writes_locally, split, ..Class::new(Access::Write) };
    }
    if program.writes_other {
        return Class::LOCAL_WRITE;
    }
    let only_other = program.touches_other && !program.reads_main && !program.calls_application;
    let access = if only_other { Access::Local } else { Access::Read };
    Class { calls_application: program.calls_application, ..Class::new(access) }
}

/// The tables it names may not be replicated yet. In doubt it goes to the primary.
fn of_verb(verb: Verb, schema: Option<&str>) -> Class {
    match verb {
        Verb::Read => Class::new(Access::Read),
        Verb::TempSchema => Class::LOCAL_WRITE,
        Verb::Change | Verb::Schema if is_elsewhere(schema) => Class::LOCAL_WRITE,
        _ => Class::new(Access::Write),
    }
}

/// Whether a schema is that of a temporary or attached database.
fn is_elsewhere(schema: Option<&str>) -> bool {
    schema.is_some_and(|schema| !schema.eq_ignore_ascii_case("main"))
}

/// PRAGMAs are told by name: SQLite runs some of them while it prepares them, so it cannot be
/// asked.
fn of_pragma(pragma: &Pragma<'_>) -> Class {
    match of_pragma_of_main(pragma) {
        // The schema before those that set the session means nothing to SQLite.
        class if class.sets_session || !is_elsewhere(pragma.schema) => class,
        class if class.access == Access::Write => Class::LOCAL_WRITE,
        _ => Class::new(Access::Local),
    }
}

fn of_pragma_of_main(pragma: &Pragma<'_>) -> Class {
    let name = pragma.name.to_ascii_lowercase();
    match (name.as_str(), pragma.value) {
        (
            "user_version" | "application_id" | "schema_version" | "auto_vacuum" | "encoding"
            | "default_cache_size",
            Some(_),
        )
        | ("incremental_vacuum" | "optimize", _) => Class::new(Access::Write),
        (
            "foreign_keys"
            | "defer_foreign_keys"
            | "recursive_triggers"
            | "ignore_check_constraints"
            | "legacy_alter_table",
            Some(_),
        ) => Class { sets_session: true, ..Class::new(Access::Local) },
        (
            "user_version" | "application_id" | "schema_version" | "auto_vacuum" | "encoding"
            | "integrity_check" | "quick_check" | "foreign_key_check" | "foreign_key_list"
            | "index_info" | "index_list" | "index_xinfo" | "table_info" | "table_xinfo"
            | "table_list" | "page_count" | "freelist_count",
            _,
        ) => Class::new(Access::Read),
        _ => Class::new(Access::Local),
    }
}

/// A statement that steers the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// BEGIN; with a lock where the mode says so.
    Begin(Option<BeginMode>),
    Commit,
    Rollback,
    Savepoint(String),
    Release(String),
    RollbackTo(String),
}

impl Control {
    pub(crate) fn of(statement: &SqlStatement<'_>) -> Option<Self> {
        let name = || statement.savepoint_name().unwrap_or_default().to_owned();
        Some(match statement.verb() {
            Verb::Begin if !statement.begins_with_lock() => Control::Begin(None),
            Verb::Begin if statement.is_word(1, "EXCLUSIVE") => {
                Control::Begin(Some(BeginMode::Exclusive))
            }
            Verb::Begin => Control::Begin(Some(BeginMode::Immediate)),
            Verb::Commit => Control::Commit,
            Verb::Rollback => Control::Rollback,
            Verb::Savepoint if statement.is_word(0, "SAVEPOINT") => Control::Savepoint(name()),
            Verb::Savepoint if statement.is_word(0, "RELEASE") => Control::Release(name()),
            Verb::Savepoint => Control::RollbackTo(name()),
            _ => return None,
        })
    }
}

/// What to do with the text of `batch_execute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScriptPlan {
    /// One statement that steers the transaction.
    Control(Control),
    /// Runs here, as it stands.
    Local { writes_locally: bool, sets_session: bool, reads: bool },
    /// Changes the database: taken whole to where writes go. `session` holds the PRAGMAs that also
    /// concern this connection; `split` says that it needs temporary or attached tables as well,
    /// which are here.
    Write { session: Vec<String>, split: bool },
    /// Cannot run as one script.
    Refused(String),
}

/// Scripts are taken whole: one place for all of it, or a clear refusal. Pure.
///
/// `in_transaction`: one is open, which the script must not end.
pub(crate) fn plan_script(
    statements: &[SqlStatement<'_>],
    classes: &[Class],
    in_transaction: bool,
) -> ScriptPlan {
    if let ([statement], Some(control)) = (statements, statements.first().and_then(Control::of)) {
        let _ = statement;
        return ScriptPlan::Control(control);
    }
    let any = |test: fn(&Class) -> bool| classes.iter().any(test);
    if any(|class| class.control) && !is_balanced(statements, in_transaction) {
        return ScriptPlan::Refused(
            "a script may contain a transaction, but must both open and close it: a statement elsewhere could end up \
             inside or outside of it unseen"
                .into(),
        );
    }
    let reads = any(|class| class.access == Access::Read);
    let (writes_locally, sets_session) =
        (any(|class| class.writes_locally), any(|class| class.sets_session));
    if !any(|class| class.access == Access::Write) {
        return ScriptPlan::Local { writes_locally, sets_session, reads };
    }
    let session = statements.iter().zip(classes).filter(|(_, class)| class.sets_session);
    let session = session.map(|(statement, _)| statement.sql.to_owned()).collect();
    ScriptPlan::Write { session, split: writes_locally || any(|class| class.split) }
}

/// Whether every transaction that the script opens is closed by it, and no other.
fn is_balanced(statements: &[SqlStatement<'_>], in_transaction: bool) -> bool {
    let mut savepoints = Vec::new();
    let mut open = false;
    for control in statements.iter().filter_map(Control::of) {
        match control {
            Control::Begin(_) if open || !savepoints.is_empty() => return false,
            Control::Begin(_) => open = true,
            // Without a BEGIN of its own it would end what is open around the script.
            Control::Commit | Control::Rollback
                if !open && (in_transaction || savepoints.is_empty()) =>
            {
                return false;
            }
            Control::Commit | Control::Rollback => {
                open = false;
                savepoints.clear();
            }
            Control::Savepoint(name) => savepoints.push(name),
            Control::Release(name) => {
                match savepoints.iter().rposition(|s| s.eq_ignore_ascii_case(&name)) {
                    Some(at) => savepoints.truncate(at),
                    None => return false,
                }
            }
            Control::RollbackTo(name)
                if !savepoints.iter().any(|s| s.eq_ignore_ascii_case(&name)) =>
            {
                return false;
            }
            Control::RollbackTo(_) => {}
        }
    }
    !open && savepoints.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefs_rpc::sqlite::sql::statements;

    const READS: Program = Program {
        reads_main: true,
        writes_main: false,
        touches_other: false,
        writes_other: false,
        calls_application: false,
    };
    const WRITES: Program = Program { reads_main: false, writes_main: true, ..READS };
    const TEMP: Program =
        Program { reads_main: false, touches_other: true, writes_other: true, ..READS };

    fn of(sql: &str, program: Option<Program>) -> Class {
        classify(&statements(sql)[0], program)
    }

    #[test]
    fn the_program_decides_and_the_verb_only_where_there_is_none() {
        for (sql, program, access) in [
            ("SELECT 1", Some(Program::default()), Access::Read),
            ("SELECT * FROM t", Some(READS), Access::Read),
            ("INSERT INTO t VALUES (1)", Some(WRITES), Access::Write),
            ("INSERT INTO temp.t VALUES (1)", Some(TEMP), Access::Local),
            ("SELECT * FROM temp.t", Some(Program { writes_other: false, ..TEMP }), Access::Local),
            (
                "CREATE TEMP TABLE t AS SELECT * FROM u",
                Some(Program { reads_main: true, ..TEMP }),
                Access::Local,
            ),
            ("SELECT * FROM not_here_yet", None, Access::Read),
            ("INSERT INTO not_here_yet VALUES (1)", None, Access::Write),
            ("CREATE TEMP TABLE t(x)", None, Access::Local),
            ("gibberish", None, Access::Write),
            ("DROP TABLE IF EXISTS t", Some(READS), Access::Write),
            (
                "DROP TABLE IF EXISTS other.t",
                Some(Program { writes_other: false, ..TEMP }),
                Access::Local,
            ),
            ("VACUUM", None, Access::Write),
            ("VACUUM INTO 'copy'", None, Access::Local),
            ("VACUUM main", None, Access::Write),
            ("VACUUM other", None, Access::Local),
            ("INSERT INTO other.not_here_yet VALUES (1)", None, Access::Local),
            ("INSERT INTO not_here_yet SELECT * FROM other.t", None, Access::Write),
            ("DROP TABLE main.not_here_yet", None, Access::Write),
            ("ATTACH 'x' AS y", None, Access::Local),
        ] {
            assert_eq!(of(sql, program).access, access, "{sql}");
        }
        assert!(of("INSERT INTO t SELECT 1", Some(Program { writes_main: true, ..TEMP })).split);
    }

    #[test]
    fn m12_pragmas_are_told_by_name() {
        assert_eq!(of("PRAGMA user_version = 3", None).access, Access::Write);
        assert_eq!(of("PRAGMA user_version", None).access, Access::Read);
        assert_eq!(of("PRAGMA busy_timeout = 3", None).access, Access::Local);
        assert!(of("PRAGMA foreign_keys = ON", None).sets_session);
        assert!(of("PRAGMA other.foreign_keys = ON", None).sets_session);
        assert_eq!(of("PRAGMA other.user_version = 3", None), Class::LOCAL_WRITE);
        assert_eq!(of("PRAGMA temp.user_version", None), Class::new(Access::Local));
        assert_eq!(of("PRAGMA \"main\".user_version = 3", None).access, Access::Write);
        assert!(!of("PRAGMA foreign_keys", None).sets_session);
        assert!(of("PRAGMA journal_mode = DELETE", None).refused);
    }

    #[test]
    fn a_vacuum_says_what_it_copies() {
        let flags = |sql| (of(sql, None).vacuums, of(sql, None).copies);
        assert_eq!(flags("VACUUM"), (false, false));
        assert_eq!(flags("VACUUM other"), (true, false));
        assert_eq!(flags("VACUUM other INTO 'copy'"), (true, false));
        assert_eq!(flags("VACUUM main INTO 'copy'"), (true, true));
    }

    #[test]
    fn m15_questions_about_the_last_write_are_seen() {
        assert!(of("SELECT last_insert_rowid()", None).asks_session);
        assert!(of("SELECT id FROM t WHERE id = Last_Insert_Rowid ()", None).asks_session);
        assert!(!of("SELECT 'last_insert_rowid()'", None).asks_session);
    }

    fn plan(sql: &str) -> ScriptPlan {
        let all = statements(sql);
        let classes: Vec<_> = all.iter().map(|s| classify(s, None)).collect();
        plan_script(&all, &classes, false)
    }

    #[test]
    fn scripts_are_taken_whole() {
        assert_eq!(plan("BEGIN"), ScriptPlan::Control(Control::Begin(None)));
        assert_eq!(
            plan("BEGIN EXCLUSIVE"),
            ScriptPlan::Control(Control::Begin(Some(BeginMode::Exclusive)))
        );
        assert_eq!(
            plan("ROLLBACK TO SAVEPOINT a"),
            ScriptPlan::Control(Control::RollbackTo("a".into()))
        );
        assert_eq!(
            plan("INSERT INTO t VALUES (1); SELECT 1"),
            ScriptPlan::Write { session: vec![], split: false }
        );
        assert_eq!(
            plan("PRAGMA foreign_keys=OFF; DROP TABLE t"),
            ScriptPlan::Write { session: vec!["PRAGMA foreign_keys=OFF".into()], split: false }
        );
        let local = |reads| ScriptPlan::Local { writes_locally: false, sets_session: false, reads };
        assert_eq!(plan("PRAGMA busy_timeout=1; PRAGMA cache_size=1"), local(false));
        assert_eq!(plan("BEGIN; SELECT 1; COMMIT"), local(true));
        assert!(matches!(plan("BEGIN; INSERT INTO t VALUES (1)"), ScriptPlan::Refused(_)));
        assert!(matches!(plan("INSERT INTO t VALUES (1); COMMIT"), ScriptPlan::Refused(_)));
        assert!(matches!(
            plan("CREATE TEMP TABLE a(x); DELETE FROM t"),
            ScriptPlan::Write { split: true, .. }
        ));
        assert!(matches!(plan("SAVEPOINT a; DELETE FROM t; RELEASE a"), ScriptPlan::Write { .. }));
    }
}
