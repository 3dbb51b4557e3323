//! Splits an INSERT of many rows into INSERTs of one row.

use std::ops::Range;

use litefs_rpc::sqlite::sql::{Token, TokenKind, tokens};
use litefs_rpc::wire::Repeated;

/// A row in parentheses: its range in the text, and its number of parameters.
type Row = (Range<usize>, usize);

/// The statement for each of its rows, rows with one text after another together. What is no INSERT
/// of rows, or has other parameters than `?`, stays as it is.
pub(super) fn row_by_row(statement: Repeated) -> Vec<Repeated> {
    let rows = rows_of(&statement.sql);
    let places: usize = rows.iter().map(|(_, places)| places).sum();
    let ([(first, _), .., (last, _)], 1, Some(behind)) =
        (&rows[..], statement.times, statement.params.get(places..))
    else {
        return vec![statement];
    };
    let (head, tail) = (&statement.sql[..first.start], &statement.sql[last.end..]);
    let mut all: Vec<Repeated> = Vec::new();
    let mut params = statement.params.iter();
    for (row, places) in &rows {
        let sql = format!("{head}{}{tail}", &statement.sql[row.clone()]);
        if all.last().is_none_or(|before| before.sql != sql) {
            all.push(Repeated {
                sql,
                times: 0,
                params: Vec::new(),
                cacheable: statement.cacheable,
            });
        }
        if let Some(repeated) = all.last_mut() {
            repeated.times += 1;
            repeated.params.extend(params.by_ref().take(*places).chain(behind).cloned());
        }
    }
    all
}

/// The rows after VALUES. Empty if they cannot be found with certainty.
fn rows_of(sql: &str) -> Vec<Row> {
    let all: Vec<_> = tokens(sql).collect();
    let is_other = |token: &Token<'_>| token.kind == TokenKind::Parameter && token.text != "?";
    let values = all.iter().position(|token| token.is("VALUES"));
    let Some((head, [_, rest @ ..])) = values.map(|at| all.split_at(at)) else { return Vec::new() };
    if all.iter().any(is_other) || head.iter().any(|token| token.kind == TokenKind::Parameter) {
        return Vec::new();
    }
    let mut rows = Vec::new();
    let mut rest = rest;
    while let Some((row, behind)) = row_at(rest) {
        rows.push(row);
        match behind {
            [comma, next @ ..] if comma.text == "," => rest = next,
            _ => break,
        }
    }
    rows
}

/// The row at the beginning, and the tokens behind it.
fn row_at<'a, 't>(tokens: &'t [Token<'a>]) -> Option<(Row, &'t [Token<'a>])> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            let row = (at > 0).then(|| tokens.split_at(at + 1));
            return row.map(|(row, behind)| {
                let places = row.iter().filter(|token| token.kind == TokenKind::Parameter).count();
                ((row[0].start..token.end(), places), behind)
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use litefs_rpc::wire::Value;

    use super::*;

    fn split(sql: &str, params: i64) -> Vec<(String, Vec<i64>)> {
        let values = (1..=params).map(Value::Integer).collect();
        let statement =
            Repeated { sql: sql.to_owned(), times: 1, params: values, cacheable: false };
        let number = |value: &Value| if let Value::Integer(number) = value { *number } else { 0 };
        let all = row_by_row(statement);
        let runs = all.iter().flat_map(|one| one.runs().map(|run| (&one.sql, run)));
        runs.map(|(sql, run)| (sql.clone(), run.iter().map(number).collect())).collect()
    }

    #[test]
    fn each_row_gets_its_values_and_those_behind_the_rows() {
        let sql = "INSERT INTO `t` (`a`, `b`) VALUES (?, ?), (?, ?) \
                   ON CONFLICT (`a`) DO UPDATE SET b = ?";
        let one = "INSERT INTO `t` (`a`, `b`) VALUES (?, ?) ON CONFLICT (`a`) DO UPDATE SET b = ?";
        assert_eq!(
            split(sql, 5),
            [(one.to_owned(), vec![1, 2, 5]), (one.to_owned(), vec![3, 4, 5])]
        );
    }

    #[test]
    fn rows_may_differ_and_hold_anything() {
        let sql = "INSERT INTO t VALUES (')', f((?))), (?, 2), ('VALUES', 3) RETURNING a";
        let texts = ["(')', f((?)))", "(?, 2)", "('VALUES', 3)"];
        let expected = texts.map(|row| format!("INSERT INTO t VALUES {row} RETURNING a"));
        let values = [vec![1], vec![2], vec![]];
        assert_eq!(split(sql, 2), expected.into_iter().zip(values).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_told_apart_stays_whole() {
        for (sql, params) in [
            ("INSERT INTO t VALUES (?)", 1),
            ("INSERT INTO t DEFAULT VALUES", 0),
            ("INSERT INTO t SELECT ?", 1),
            ("INSERT INTO t VALUES (?2), (?1)", 2),
            ("WITH a AS (SELECT ?) INSERT INTO t VALUES (1), (2)", 1),
        ] {
            assert_eq!(split(sql, params), [(sql.to_owned(), (1..=params).collect())]);
        }
    }
}
