//! Splits SQL text into statements and classifies them.

use super::token::{Token, TokenKind, tokens};

/// The verbs of statements that change rows.
const CHANGES: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "REPLACE"];

/// The words that may stand before the name of what a statement creates, changes or maintains.
const BEFORE_NAMES: [&str; 27] = [
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
    "DROP",
    "ALTER",
    "REINDEX",
    "ANALYZE",
    "INSERT",
    "REPLACE",
    "INTO",
    "UPDATE",
    "DELETE",
    "FROM",
    "OR",
    "ROLLBACK",
    "ABORT",
    "FAIL",
    "IGNORE",
];

/// How a statement begins, as far as the rest of this library must tell statements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The schema before the name, without quotes.
    pub schema: Option<&'a str>,
    /// The name, without a schema before it.
    pub name: &'a str,
    /// The argument, without quotes, a plus sign or comments around it: `PRAGMA name = value` or
    /// `PRAGMA name(value)`.
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
            "CREATE" if self.is_word(1, "TEMP") || self.is_word(1, "TEMPORARY") => Verb::TempSchema,
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
        self.verb() == Verb::Change
            && self
                .outer_words()
                .find(|t| CHANGES.iter().any(|verb| t.is(verb)))
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
                if is(&CHANGES) {
                    return Some(Verb::Change);
                }
                is(&["SELECT", "VALUES"]).then_some(Verb::Read)
            })
            .unwrap_or(Verb::Unknown)
    }

    /// How many words before a PRAGMA explain it. Many take effect when they are prepared,
    /// explained or not.
    fn explained(&self) -> usize {
        let words = if self.is_word(1, "QUERY") && self.is_word(2, "PLAN") { 3 } else { 1 };
        if self.is_word(0, "EXPLAIN") && self.is_word(words, "PRAGMA") { words } else { 0 }
    }

    /// Whether its token at `index` is this bare word, in any case.
    #[must_use]
    pub fn is_word(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|t| t.is(word))
    }

    /// The PRAGMA's parts, if it is one.
    #[must_use]
    pub fn pragma(&self) -> Option<Pragma<'a>> {
        if self.verb() != Verb::Pragma {
            return None;
        }
        let parts = &self.tokens[self.explained() + 1..];
        let (schema, [name, argument @ ..]) = qualified(parts) else { return None };
        Some(Pragma { schema, name: unquoted(name.text), value: self.argument(argument) })
    }

    /// The argument behind `=` or `(`. A minus sign and its number are two tokens.
    fn argument(&self, tokens: &[Token<'a>]) -> Option<&'a str> {
        let (_, value) = tokens.split_first()?;
        let first = value.iter().find(|token| token.text != "+")?;
        let last = if first.text == "-" { value.get(1)? } else { first };
        let offset = self.tokens[0].start;
        Some(unquoted(&self.sql[first.start - offset..last.end() - offset]))
    }

    /// The schema that the statement names: of the PRAGMA, of what VACUUM copies or rebuilds, or of
    /// the object that it creates, changes or maintains. Without quotes.
    #[must_use]
    pub fn schema(&self) -> Option<&'a str> {
        match self.verb() {
            Verb::Pragma => self.pragma()?.schema,
            Verb::Vacuum | Verb::VacuumInto => {
                let schema =
                    self.tokens.get(1).filter(|token| token.is_name() && !token.is("INTO"));
                schema.map(|token| unquoted(token.text))
            }
            Verb::Change | Verb::Schema | Verb::TempSchema => qualified(self.object()).0,
            _ => None,
        }
    }

    /// The name of the object that the statement creates, changes or maintains, without schema and
    /// quotes.
    #[must_use]
    pub fn object_name(&self) -> Option<&'a str> {
        qualified(self.object()).1.first().map(|name| unquoted(name.text))
    }

    /// The tokens from that object's name on, with its schema.
    fn object(&self) -> &[Token<'a>] {
        let verb = self.outer_words().find(|word| CHANGES.iter().any(|verb| word.is(verb)));
        let verb =
            verb.and_then(|verb| self.tokens.iter().position(|token| token.start == verb.start));
        let rest = &self.tokens[verb.unwrap_or(0)..];
        // `temp.name`: the schema looks like one of the words.
        let is_schema = |at: usize| rest.get(at + 1).is_some_and(|next| next.text == ".");
        let is_name =
            |at: &usize| is_schema(*at) || !BEFORE_NAMES.iter().any(|word| rest[*at].is(word));
        (0..rest.len()).find(is_name).map_or(&[], |at| &rest[at..])
    }

    /// The schema that ATTACH gives to a database, without quotes.
    #[must_use]
    pub fn attached_name(&self) -> Option<&'a str> {
        let at = self.tokens.iter().rposition(|token| token.is("AS"))?;
        let name = self.tokens.get(at + 1).filter(|_| self.verb() == Verb::Attach);
        name.map(|name| unquoted(name.text))
    }

    /// Whether the function `name` is called anywhere in the statement.
    #[must_use]
    pub fn calls(&self, name: &str) -> bool {
        self.tokens.windows(2).any(|pair| {
            let named = pair[0].is_name() && unquoted(pair[0].text).eq_ignore_ascii_case(name);
            named && pair[1].kind == TokenKind::Open
        })
    }

    /// The name of the table, view or whatever else CREATE makes, without quotes.
    #[must_use]
    pub fn created_name(&self) -> Option<&'a str> {
        self.object_name().filter(|_| self.is_word(0, "CREATE"))
    }

    /// Whether one of SQLite's table-valued functions for PRAGMAs is mentioned,
    /// <https://www.sqlite.org/pragma.html#pragfunc>.
    #[must_use]
    pub fn asks_a_pragma(&self) -> bool {
        let starts =
            |text: &str| text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("pragma_"));
        self.tokens.iter().any(|token| token.is_name() && starts(unquoted(token.text)))
    }

    /// The name of the savepoint in SAVEPOINT, RELEASE or ROLLBACK TO, without quotes.
    #[must_use]
    pub fn savepoint_name(&self) -> Option<&'a str> {
        (self.verb() == Verb::Savepoint)
            .then(|| self.tokens.last().map(|t| unquoted(t.text)))
            .flatten()
    }

    /// Whether `BEGIN` asks for the lock at once: IMMEDIATE or EXCLUSIVE.
    #[must_use]
    pub fn begins_with_lock(&self) -> bool {
        self.verb() == Verb::Begin && (self.is_word(1, "IMMEDIATE") || self.is_word(1, "EXCLUSIVE"))
    }
}

/// A name's schema, without quotes, and the tokens from the name on.
fn qualified<'a, 't>(tokens: &'t [Token<'a>]) -> (Option<&'a str>, &'t [Token<'a>]) {
    match tokens {
        [schema, dot, rest @ ..] if dot.text == "." => (Some(unquoted(schema.text)), rest),
        _ => (None, tokens),
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
mod tests;
