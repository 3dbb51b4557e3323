//! Inserts many rows of parameters with statements of some rows each, if the result is the same.
//!
//! For an INSERT of one row the overhead exceeds the work of SQLite, and an INSERT of ten thousand
//! rows is slow to prepare. Rows in one statement differ from rows in separate statements only if
//! one row can observe another: through a trigger, through a foreign key of the table to itself
//! (checked at the statement's end), or through a conflict clause that skips rows, which the number
//! of changed rows shows. SQLite's program for the statement (EXPLAIN) shows triggers and foreign
//! keys.

use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::row::Row;
use diesel::sqlite::SqliteConnection;

use super::connection::ExecutorConnection;
use crate::executor::Done;
use crate::sqlite::error::from_diesel;
use crate::sqlite::query::BoundQuery;
use crate::sqlite::rows;
use crate::sqlite::session::integers_of;
use crate::sqlite::sql::{Token, TokenKind, tokens, unquoted};
use crate::wire::{Output, Repeated, ServerError, Value};

/// The most parameters of a merged statement. More make it no faster (`bench bulk`).
const MAX_PARAMETERS: usize = 512;
/// The fewest rows for which EXPLAIN is worth its cost.
const MIN_ROWS: usize = 64;

const SAVE: &str = "SAVEPOINT litefs_rows";
const RELEASE: &str = "RELEASE litefs_rows";
const UNDO: &str = "ROLLBACK TO litefs_rows; RELEASE litefs_rows";

impl ExecutorConnection {
    /// Runs a statement with each set of its parameters, in order. How many rows each has changed
    /// is added to `counts`.
    pub(super) fn repeat(
        &mut self,
        repeated: &Repeated,
        counts: &mut Vec<u64>,
    ) -> Result<(), ServerError> {
        let merged = match Insert::of(repeated) {
            Some(insert) if insert.is_independent(&mut self.sqlite) => {
                self.merged(&insert, counts)?
            }
            _ => 0,
        };
        for params in repeated.runs().skip(merged) {
            counts.push(self.count(&repeated.sql, params, repeated.cacheable)?);
        }
        Ok(())
    }

    /// Returns how many runs are done. At least one is left: `changes()` then says what it would
    /// have said.
    fn merged(&mut self, insert: &Insert<'_>, counts: &mut Vec<u64>) -> Result<usize, ServerError> {
        let Repeated { times, params, cacheable, .. } = insert.repeated;
        let rows = insert.rows();
        let sql = insert.repeated.unrolled(rows);
        let mut done = 0;
        for params in params.chunks_exact(rows * insert.width).take((times - 1) / rows) {
            let before = self.read_total_changes()?;
            self.sqlite.batch_execute(SAVE).map_err(from_diesel)?;
            let result = self.count(&sql, params, *cacheable);
            if let Ok(count) = result
                && (count == 0 || count == rows as u64)
            {
                self.sqlite.batch_execute(RELEASE).map_err(from_diesel)?;
                counts.extend(std::iter::repeat_n(count / rows as u64, rows));
                done += rows;
                continue;
            }
            // A constraint of the table may have ON CONFLICT IGNORE: it is not known which rows
            // were skipped. Run one by one, each row reports that, and so does the row that fails.
            self.sqlite
                .batch_execute(UNDO)
                .map_err(|undo| result.err().unwrap_or(from_diesel(undo)))?;
            self.total_changes += self.read_total_changes()? - before;
            break;
        }
        Ok(done)
    }

    /// Runs one INSERT of many rows, in the open transaction. `before`: `total_changes()` before
    /// it, to be compared with what it says afterwards.
    pub(super) fn insert(
        &mut self,
        rows: &Repeated,
        before: &mut i64,
    ) -> Result<Done, ServerError> {
        if let Some(insert) = Insert::of(rows)
            && insert.is_independent(&mut self.sqlite)
        {
            let total = self.read_total_changes()?;
            self.sqlite.batch_execute(SAVE).map_err(from_diesel)?;
            match self.in_parts(&insert) {
                Ok([count, last]) if last > 0 => {
                    self.sqlite.batch_execute(RELEASE).map_err(from_diesel)?;
                    let total = self.read_total_changes()?;
                    self.changes_override = Some(([signed(last), total], signed(count)));
                    return self.done(Output::Count(count), Some(*before));
                }
                Ok(_) => self.sqlite.batch_execute(UNDO).map_err(from_diesel)?,
                // A constraint of the table may have ON CONFLICT FAIL: only the whole statement
                // leaves the right rows.
                Err(refusal) => self.sqlite.batch_execute(UNDO).map_err(|_| refusal)?,
            }
            let undone = self.read_total_changes()? - total;
            self.total_changes += undone;
            *before += undone;
        }
        let count = self.count(&rows.unrolled(rows.times), &rows.params, false)?;
        self.done(Output::Count(count), Some(*before))
    }

    /// Returns how many rows were inserted, and how many by the last part.
    fn in_parts(&mut self, insert: &Insert<'_>) -> Result<[u64; 2], ServerError> {
        let rows = insert.rows();
        let sql = insert.repeated.unrolled(rows);
        let (mut count, mut last) = (0, 0);
        for params in insert.repeated.params.chunks(rows * insert.width) {
            let rest = params.len() / insert.width;
            last = if rest == rows {
                self.count(&sql, params, true)?
            } else {
                self.count(&insert.repeated.unrolled(rest), params, false)?
            };
            count += last;
        }
        Ok([count, last])
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `INSERT INTO table (..) VALUES (?, ..)`, or REPLACE, and nothing else.
struct Insert<'a> {
    repeated: &'a Repeated,
    table: &'a str,
    width: usize,
}

impl<'a> Insert<'a> {
    fn of(repeated: &'a Repeated) -> Option<Self> {
        let width = repeated.width().filter(|width| (1..=MAX_PARAMETERS / 2).contains(width))?;
        if repeated.times < MIN_ROWS {
            return None;
        }
        let all: Vec<Token<'_>> = tokens(&repeated.sql).collect();
        let (head, row) = all.split_at_checked(all.len().checked_sub(2 * width + 1)?)?;
        let is_row = row.iter().enumerate().all(|(at, token)| match at {
            0 => token.kind == TokenKind::Open,
            at if at == 2 * width => token.kind == TokenKind::Close,
            at => token.text == if at % 2 == 1 { "?" } else { "," },
        });
        let [insert, into, table, columns @ .., values] = head else { return None };
        let is_insert =
            (insert.is("INSERT") || insert.is("REPLACE")) && into.is("INTO") && values.is("VALUES");
        let is_list = match columns {
            [] => true,
            [open, names @ .., close] => {
                let name = |token: &Token<'_>| {
                    matches!(token.kind, TokenKind::Word | TokenKind::Quoted) || token.text == ","
                };
                open.kind == TokenKind::Open
                    && close.kind == TokenKind::Close
                    && names.iter().all(name)
            }
            _ => false,
        };
        let name = unquoted(table.text);
        let is_plain = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ' ');
        (is_row && is_insert && is_list && is_plain).then_some(Self {
            repeated,
            table: name,
            width,
        })
    }

    /// The rows of one statement.
    fn rows(&self) -> usize {
        MAX_PARAMETERS / self.width
    }

    /// Whether no row can observe that the same statement inserts another.
    fn is_independent(&self, connection: &mut SqliteConnection) -> bool {
        match self.dependence(connection) {
            Ok(
                Dependence { triggers: true, .. }
                | Dependence { asks: true, .. }
                | Dependence { keys: true, replaces: true, .. },
            ) => false,
            Ok(Dependence { keys: true, .. }) => self.refers_to_itself(connection) == Ok(false),
            Ok(_) => true,
            // The statement itself will report the error.
            Err(_) => false,
        }
    }

    fn dependence(&self, connection: &mut SqliteConnection) -> QueryResult<Dependence> {
        let sql = format!("EXPLAIN {}", self.repeated.unrolled(2));
        let mut found = Dependence::default();
        for row in connection.load(BoundQuery::new(&sql, &[], false))? {
            let row = row?;
            let text = |at| match Row::get(&row, at).map(|field| rows::value(&field)) {
                Some(Value::Text(text)) => text,
                _ => String::new(),
            };
            let (opcode, operand) = (text(1), text(5));
            found.triggers |= opcode == "Program";
            found.keys |= opcode.starts_with("Fk");
            found.replaces |= opcode == "Delete";
            found.asks |=
                ["changes(", "total_changes("].iter().any(|function| operand.starts_with(function));
        }
        Ok(found)
    }

    fn refers_to_itself(&self, connection: &mut SqliteConnection) -> QueryResult<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1) \
                   WHERE \"table\" = ?1 COLLATE NOCASE)";
        let table = [Value::Text(self.table.to_owned())];
        let [found] = integers_of(connection, BoundQuery::new(sql, &table, true))?;
        Ok(found != 0)
    }
}

/// What SQLite's program for a statement contains (<https://www.sqlite.org/opcode.html>).
#[derive(Debug, Default)]
struct Dependence {
    /// `Program`: a trigger, or the action of a foreign key.
    triggers: bool,
    /// `FkCounter`, `FkIfZero`, `FkCheck`.
    keys: bool,
    /// `Delete`: a row may replace another, to which rows of other tables may refer.
    replaces: bool,
    /// A default or a check calls a function that reports on the previous statement.
    asks: bool,
}
