use super::token::{Token, TokenKind, tokens};

/// How a statement begins, as far as the rest of this library must tell statements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// SELECT, VALUES, EXPLAIN.
    Read,
    /// INSERT, UPDATE, DELETE, REPLACE, also behind WITH.
    Change,
    /// CREATE, DROP, ALTER, REINDEX, ANALYZE.
    Schema,
    /// CREATE TEMP .. (a DROP or ALTER of a temporary object cannot be told from its text).
    TempSchema,
    /// VACUUM.
    Vacuum,
    /// VACUUM INTO.
    VacuumInto,
    /// PRAGMA.
    Pragma,
    /// BEGIN.
    Begin,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint,
    /// ATTACH.
    Attach,
    /// DETACH.
    Detach,
    /// Nothing that SQLite knows.
    Unknown,
}

/// A PRAGMA's parts, <https://www.sqlite.org/pragma.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pragma<'a> {
    /// The name, without a schema before it.
    pub name: &'a str,
    /// The argument, without quotes: `PRAGMA name = value` or `PRAGMA name(value)`.
    pub value: Option<&'a str>,
}

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlStatement<'a> {
    /// Its text, without the semicolon.
    pub sql: &'a str,
    tokens: Vec<Token<'a>>,
}

/// The statements of SQL text, in order; empty ones are left out.
#[must_use]
pub fn statements(sql: &str) -> Vec<SqlStatement<'_>> {
    let mut all = Vec::new();
    let mut current: Vec<Token<'_>> = Vec::new();
    for token in tokens(sql) {
        if token.kind == TokenKind::Semicolon && !inside_trigger(&current) {
            finish(sql, &mut current, &mut all);
        } else {
            current.push(token);
        }
    }
    finish(sql, &mut current, &mut all);
    all
}

fn finish<'a>(sql: &'a str, current: &mut Vec<Token<'a>>, all: &mut Vec<SqlStatement<'a>>) {
    let tokens = std::mem::take(current);
    if let (Some(first), Some(last)) = (tokens.first(), tokens.last()) {
        all.push(SqlStatement { sql: &sql[first.start..last.end()], tokens });
    }
}

/// A trigger's body ends with `; END`, as in `sqlite3_complete`; any other semicolon belongs to it.
fn inside_trigger(tokens: &[Token<'_>]) -> bool {
    if !creates_trigger(tokens) {
        return false;
    }
    let ended = match tokens {
        [.., before, last] => before.kind == TokenKind::Semicolon && last.is("END"),
        _ => false,
    };
    !ended
}

fn creates_trigger(tokens: &[Token<'_>]) -> bool {
    let mut words = tokens.iter().skip_while(|t| t.is("EXPLAIN") || t.is("QUERY") || t.is("PLAN"));
    words.next().is_some_and(|t| t.is("CREATE"))
        && words.find(|t| !t.is("TEMP") && !t.is("TEMPORARY")).is_some_and(|t| t.is("TRIGGER"))
}

impl<'a> SqlStatement<'a> {
    /// How it begins.
    #[must_use]
    pub fn verb(&self) -> Verb {
        let first = self.tokens[self.explained()];
        if first.kind != TokenKind::Word {
            return Verb::Unknown;
        }
        match first.text.to_ascii_uppercase().as_str() {
            "SELECT" | "VALUES" | "EXPLAIN" => Verb::Read,
            "WITH" => self.verb_behind_with(),
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" => Verb::Change,
            "CREATE" if self.word(1, "TEMP") || self.word(1, "TEMPORARY") => Verb::TempSchema,
            "CREATE" | "DROP" | "ALTER" | "REINDEX" | "ANALYZE" => Verb::Schema,
            "VACUUM" if self.tokens.iter().any(|t| t.is("INTO")) => Verb::VacuumInto,
            "VACUUM" => Verb::Vacuum,
            "PRAGMA" => Verb::Pragma,
            "BEGIN" => Verb::Begin,
            "COMMIT" | "END" => Verb::Commit,
            "ROLLBACK" if self.tokens.iter().any(|t| t.is("TO")) => Verb::Savepoint,
            "ROLLBACK" => Verb::Rollback,
            "SAVEPOINT" | "RELEASE" => Verb::Savepoint,
            "ATTACH" => Verb::Attach,
            "DETACH" => Verb::Detach,
            _ => Verb::Unknown,
        }
    }

    /// Whether it inserts rows itself: INSERT or REPLACE, also behind WITH.
    #[must_use]
    pub fn inserts(&self) -> bool {
        let verbs = ["INSERT", "REPLACE", "UPDATE", "DELETE"];
        self.verb() == Verb::Change
            && self
                .outer_words()
                .find(|t| verbs.iter().any(|v| t.is(v)))
                .is_some_and(|t| t.is("INSERT") || t.is("REPLACE"))
    }

    /// The bare words outside parentheses.
    fn outer_words(&self) -> impl Iterator<Item = Token<'a>> {
        let mut depth = 0_usize;
        self.tokens.iter().copied().filter(move |token| {
            match token.kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == TokenKind::Word
        })
    }

    /// The statement behind the common table expressions: the first verb outside parentheses.
    fn verb_behind_with(&self) -> Verb {
        self.outer_words()
            .find_map(|word| {
                let is = |verbs: &[&str]| verbs.iter().any(|verb| word.is(verb));
                if is(&["INSERT", "UPDATE", "DELETE", "REPLACE"]) {
                    return Some(Verb::Change);
                }
                is(&["SELECT", "VALUES"]).then_some(Verb::Read)
            })
            .unwrap_or(Verb::Unknown)
    }

    /// How many words before a PRAGMA explain it. Many take effect when they are prepared, explained or not.
    fn explained(&self) -> usize {
        let words = if self.word(1, "QUERY") && self.word(2, "PLAN") { 3 } else { 1 };
        if self.word(0, "EXPLAIN") && self.word(words, "PRAGMA") { words } else { 0 }
    }

    fn word(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|t| t.is(word))
    }

    /// The PRAGMA's parts, if it is one.
    #[must_use]
    pub fn pragma(&self) -> Option<Pragma<'a>> {
        if self.verb() != Verb::Pragma {
            return None;
        }
        let mut rest = self.tokens[self.explained() + 1..].iter().copied();
        let mut name = rest.next()?;
        let mut next = rest.next();
        if next.is_some_and(|t| t.text == ".") {
            name = rest.next()?;
            next = rest.next();
        }
        let value = next.and_then(|_| rest.next()).map(|first| self.argument(first));
        Some(Pragma { name: unquoted(name.text), value })
    }

    /// From the argument's first token to the end; a sign and its number are two tokens.
    fn argument(&self, first: Token<'a>) -> &'a str {
        let offset = first.start - self.tokens[0].start;
        unquoted(self.sql[offset..].trim_end_matches(')').trim())
    }

    /// Whether the function `name` is called anywhere in the statement.
    #[must_use]
    pub fn calls(&self, name: &str) -> bool {
        self.tokens.windows(2).any(|pair| {
            let named = match pair[0].kind {
                TokenKind::Word | TokenKind::Quoted => unquoted(pair[0].text).eq_ignore_ascii_case(name),
                _ => false,
            };
            named && pair[1].kind == TokenKind::Open
        })
    }

    /// The name of the table, view or whatever else CREATE makes, without quotes.
    #[must_use]
    pub fn created_name(&self) -> Option<&'a str> {
        let filler = [
            "CREATE",
            "TEMP",
            "TEMPORARY",
            "UNIQUE",
            "VIRTUAL",
            "TABLE",
            "VIEW",
            "INDEX",
            "TRIGGER",
            "IF",
            "NOT",
            "EXISTS",
        ];
        // `temp.name`: the schema looks like one of the words.
        let filler = |token: &&Token<'_>| token.text == "." || filler.iter().any(|word| token.is(word));
        let mut rest = self.tokens.iter().skip_while(filler);
        let mut name = rest.next()?;
        if rest.next().is_some_and(|token| token.text == ".") {
            name = rest.next()?;
        }
        self.word(0, "CREATE").then(|| unquoted(name.text))
    }

    /// Whether a word or quoted name of the statement is `name`.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        let named = |kind| matches!(kind, TokenKind::Word | TokenKind::Quoted);
        self.tokens.iter().any(|token| named(token.kind) && unquoted(token.text).eq_ignore_ascii_case(name))
    }

    /// Whether one of SQLite's table-valued functions for PRAGMAs is mentioned, <https://www.sqlite.org/pragma.html#pragfunc>.
    #[must_use]
    pub fn asks_a_pragma(&self) -> bool {
        let named = |kind| matches!(kind, TokenKind::Word | TokenKind::Quoted);
        let starts = |text: &str| text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("pragma_"));
        self.tokens.iter().any(|token| named(token.kind) && starts(unquoted(token.text)))
    }

    /// The name of the savepoint in SAVEPOINT, RELEASE or ROLLBACK TO.
    #[must_use]
    pub fn savepoint_name(&self) -> Option<&'a str> {
        (self.verb() == Verb::Savepoint).then(|| self.tokens.last().map(|t| t.text)).flatten()
    }

    /// Whether `BEGIN` asks for the lock at once: IMMEDIATE or EXCLUSIVE.
    #[must_use]
    pub fn begins_with_lock(&self) -> bool {
        self.verb() == Verb::Begin && (self.word(1, "IMMEDIATE") || self.word(1, "EXCLUSIVE"))
    }
}

/// A name without its quotes.
pub(in crate::sqlite) fn unquoted(text: &str) -> &str {
    let mut chars = text.chars();
    match (chars.next(), chars.next_back()) {
        (Some('\''), Some('\''))
        | (Some('"'), Some('"'))
        | (Some('`'), Some('`'))
        | (Some('['), Some(']')) => chars.as_str(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(pragma("PRAGMA main.journal_mode = 'delete'"), Some(("journal_mode", Some("delete"))));
        assert_eq!(pragma("pragma cache_size(-2000)"), Some(("cache_size", Some("-2000"))));
        assert_eq!(pragma("EXPLAIN PRAGMA query_only = OFF"), Some(("query_only", Some("OFF"))));
        assert_eq!(pragma("SELECT 1"), None);
    }

    #[test]
    fn created_names_are_found_and_mentions_of_them() {
        let created = |sql| statements(sql)[0].created_name();
        assert_eq!(created("CREATE TEMP TABLE IF NOT EXISTS a (x)"), Some("a"));
        assert_eq!(created("create temporary view temp.\"b c\" as select 1"), Some("b c"));
        assert_eq!(created("CREATE TABLE main.a (x)"), Some("a"));
        assert_eq!(created("DROP TABLE a"), None);
        assert!(statements("INSERT INTO [A] VALUES (1)")[0].mentions("a"));
        assert!(!statements("INSERT INTO ab VALUES ('x')")[0].mentions("a"));
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
}
