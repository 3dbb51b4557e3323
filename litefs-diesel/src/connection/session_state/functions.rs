//! `last_insert_rowid()`, `changes()` and `total_changes()` after a forwarded write.
//!
//! SQLite answers them per connection, and the write ran on another one. A statement that calls
//! them gets the numbers of the forwarded write in place of the calls, which are found by SQLite's
//! token rules.

use litefs_rpc::sqlite::sql::{Token, TokenKind, tokens};

/// What the three functions say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::connection) struct Answers {
    pub(in crate::connection) last_insert_rowid: i64,
    pub(in crate::connection) changes: i64,
    pub(in crate::connection) total_changes: i64,
}

impl Answers {
    fn to(self, function: &Token<'_>) -> Option<i64> {
        [
            ("last_insert_rowid", self.last_insert_rowid),
            ("changes", self.changes),
            ("total_changes", self.total_changes),
        ]
        .into_iter()
        .find(|(name, _)| function.is(name))
        .map(|(_, answer)| answer)
    }
}

/// The statement with the calls replaced. A result column that is just a call keeps its name.
pub(in crate::connection) fn answered(sql: &str, answers: Answers) -> String {
    let all: Vec<_> = tokens(sql).collect();
    let mut text = String::with_capacity(sql.len());
    let mut copied = 0;
    let mut at = 0;
    while let Some(token) = all.get(at) {
        let call = matches!(all.get(at + 1..at + 3), Some([open, close])
            if open.kind == TokenKind::Open && close.kind == TokenKind::Close);
        match answers.to(token).filter(|_| call) {
            Some(answer) => {
                let end = all[at + 2].end();
                text.push_str(&sql[copied..token.start]);
                text.push_str(&format!("({answer})"));
                if is_result_column(&all, at) {
                    text.push_str(&format!(
                        " AS \"{}\"",
                        sql[token.start..end].replace('"', "\"\"")
                    ));
                }
                copied = end;
                at += 3;
            }
            None => at += 1,
        }
    }
    text.push_str(&sql[copied..]);
    text
}

/// Whether the call at `at` stands alone between SELECT or a comma and a comma, FROM or the end.
fn is_result_column(all: &[Token<'_>], at: usize) -> bool {
    let depth = all[..at].iter().fold(0_i32, |depth, token| match token.kind {
        TokenKind::Open => depth + 1,
        TokenKind::Close => depth - 1,
        _ => depth,
    });
    let starts = at > 0 && (all[at - 1].is("SELECT") || all[at - 1].text == ",");
    let selects = all[..at].iter().any(|t| t.is("SELECT"))
        && !all[..at].iter().any(|t| t.is("FROM") || t.is("VALUES"));
    let ends = all
        .get(at + 3)
        .is_none_or(|t| t.is("FROM") || t.text == "," || t.kind == TokenKind::Semicolon);
    depth == 0 && starts && selects && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m15_calls_are_answered_and_nothing_else_is_touched() {
        let answers = Answers { last_insert_rowid: 42, changes: 3, total_changes: -1 };
        for (sql, expected) in [
            ("SELECT last_insert_rowid()", "SELECT (42) AS \"last_insert_rowid()\""),
            (
                "SELECT Changes ( ), total_changes()",
                "SELECT (3) AS \"Changes ( )\", (-1) AS \"total_changes()\"",
            ),
            ("SELECT last_insert_rowid() AS id FROM t", "SELECT (42) AS id FROM t"),
            ("SELECT * FROM t WHERE id = last_insert_rowid()", "SELECT * FROM t WHERE id = (42)"),
            (
                "INSERT INTO t VALUES (last_insert_rowid(), 'changes()')",
                "INSERT INTO t VALUES ((42), 'changes()')",
            ),
            ("SELECT changes FROM t", "SELECT changes FROM t"),
            (
                "SELECT \"last_insert_rowid\" -- changes()",
                "SELECT \"last_insert_rowid\" -- changes()",
            ),
        ] {
            assert_eq!(answered(sql, answers), expected);
        }
    }
}
