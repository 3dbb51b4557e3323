//! Statements and their parameters.

use serde::{Deserialize, Serialize};

use super::Value;

/// One SQL statement and the values of its parameters, in the order of SQLite's parameter indexes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The SQL text.
    pub sql: String,
    /// One value for each parameter.
    pub params: Vec<Value>,
    /// Whether the text is used repeatedly, so that its prepared statement is worth caching.
    pub cacheable: bool,
}

impl Statement {
    /// The bytes that this statement adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        16 + self.sql.len() + self.params.iter().map(Value::size).sum::<usize>()
    }
}

/// One SQL text that runs several times with different parameters (`executemany` in other
/// interfaces). The text is sent and checked once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repeated {
    /// The SQL text.
    pub sql: String,
    /// How many times it runs.
    pub times: usize,
    /// The parameters of all runs, one run after the other, the same number for each.
    pub params: Vec<Value>,
    /// Whether the text is used repeatedly, so that its prepared statement is worth caching.
    pub cacheable: bool,
}

impl Repeated {
    /// The bytes that this adds to a message, approximately, for limits. A run without parameters
    /// counts as well, so that what a message can ask for is bounded by its size.
    #[must_use]
    pub fn size(&self) -> usize {
        let params = self.params.iter().map(Value::size).sum::<usize>();
        (24 + self.sql.len() + params).saturating_add(self.times.saturating_mul(16))
    }

    /// The number of parameters of one run. `None` if the message is malformed: they do not divide
    /// by the number of runs.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        match self.params.len().checked_rem(self.times) {
            Some(0) => Some(self.params.len() / self.times),
            _ => None,
        }
    }

    /// The parameters of each run, in order; none at all if they do not divide evenly.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &[Value]> {
        let (times, width) = self.width().map_or((0, 0), |width| (self.times, width));
        (0..times).map(move |run| &self.params[run * width..(run + 1) * width])
    }

    /// Each run as a statement of its own, run once.
    pub fn split(mut self) -> impl Iterator<Item = Repeated> {
        let (times, width) = self.width().map_or((0, 0), |width| (self.times, width));
        (0..times).map(move |_| Repeated {
            sql: self.sql.clone(),
            times: 1,
            params: self.params.drain(..width).collect(),
            cacheable: self.cacheable,
        })
    }
}

/// An INSERT of many rows of parameters is sent as its text with one row, and the number of rows.
impl Repeated {
    /// Between the rows of one INSERT.
    const BETWEEN: &str = ", ";

    /// Shortens an INSERT of more than `most` rows.
    ///
    /// # Errors
    /// Returns the statement unchanged if it is not an INSERT of parameters or has fewer rows.
    pub fn roll_up(statement: Statement, most: usize) -> Result<Self, Statement> {
        let Statement { sql, params, cacheable } = statement;
        let inserts = ["INSERT ", "REPLACE "].iter().any(|verb| sql.starts_with(verb));
        let row = if inserts { last_row(&sql) } else { "" };
        let mut rest = sql.as_str();
        let mut times = 1;
        if !row.is_empty() {
            while let Some(shorter) =
                rest.strip_suffix(row).and_then(|r| r.strip_suffix(Self::BETWEEN))
                && shorter.ends_with(row)
            {
                (rest, times) = (shorter, times + 1);
            }
        }
        let rolled_up = rest.len();
        if times <= most || params.len().checked_rem(times) != Some(0) {
            return Err(Statement { sql, params, cacheable });
        }
        let mut sql = sql;
        sql.truncate(rolled_up);
        Ok(Self { sql, times, params, cacheable })
    }

    /// The text with so many rows.
    #[must_use]
    pub fn unrolled(&self, rows: usize) -> String {
        let row = last_row(&self.sql);
        let mut sql = String::with_capacity(self.unrolled_len(rows));
        sql.push_str(&self.sql);
        for _ in 1..rows {
            sql.push_str(Self::BETWEEN);
            sql.push_str(row);
        }
        sql
    }

    /// The length of that text in bytes.
    #[must_use]
    pub fn unrolled_len(&self, rows: usize) -> usize {
        let more =
            rows.saturating_sub(1).saturating_mul(last_row(&self.sql).len() + Self::BETWEEN.len());
        self.sql.len().saturating_add(more)
    }
}

/// The parentheses at the end of an INSERT, if they contain only parameters.
fn last_row(sql: &str) -> &str {
    let row = sql.rfind('(').map_or("", |open| &sql[open..]);
    let inner = row.strip_prefix('(').and_then(|row| row.strip_suffix(')')).unwrap_or_default();
    let is_row =
        inner.contains('?') && inner.bytes().all(|byte| matches!(byte, b'?' | b',' | b' '));
    if is_row { row } else { "" }
}

impl From<Statement> for Repeated {
    fn from(Statement { sql, params, cacheable }: Statement) -> Self {
        Self { sql, times: 1, params, cacheable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(times: usize, params: i64) -> Repeated {
        let params = (0..params).map(Value::Integer).collect();
        Repeated { sql: "SELECT ?".into(), times, params, cacheable: true }
    }

    #[test]
    fn runs_share_the_parameters_evenly() {
        let three = repeated(3, 6);
        assert_eq!(three.runs().map(<[Value]>::to_vec).collect::<Vec<_>>(), {
            let values = |a, b| vec![Value::Integer(a), Value::Integer(b)];
            [values(0, 1), values(2, 3), values(4, 5)]
        });
        let split: Vec<_> = three.clone().split().collect();
        assert!(split.iter().all(|one| one.times == 1 && one.sql == three.sql));
        assert_eq!(split.into_iter().flat_map(|one| one.params).collect::<Vec<_>>(), three.params);
        assert_eq!(repeated(4, 0).runs().len(), 4);
    }

    #[test]
    fn an_insert_of_many_rows_is_rolled_up_and_unrolled_again() {
        let statement = |sql: &str, params: i64| Statement {
            sql: sql.into(),
            params: (0..params).map(Value::Integer).collect(),
            cacheable: false,
        };
        let three = statement("INSERT INTO `t` (`a`, `b`) VALUES (?, ?), (?, ?), (?, ?)", 6);
        let short = Repeated::roll_up(three.clone(), 2).unwrap();
        assert_eq!(
            (short.sql.as_str(), short.times),
            ("INSERT INTO `t` (`a`, `b`) VALUES (?, ?)", 3)
        );
        assert_eq!(
            (short.unrolled(3), short.unrolled_len(3)),
            (three.sql.clone(), three.sql.len())
        );
        for other in [
            three,
            statement("INSERT INTO t VALUES (?), (?), (?), (?)", 3),
            statement("INSERT INTO t VALUES (?), (?), (?), (1)", 3),
            statement("INSERT INTO t VALUES (?), (?), (?), (?) RETURNING a", 4),
            statement("SELECT f(?), (?), (?), (?)", 4),
            statement("SELECT ')', (?), (?), (?), (?)", 4),
            statement("", 0),
            statement("(?), (?), (?), (?)", 0),
        ] {
            assert_eq!(Repeated::roll_up(other.clone(), 3), Err(other));
        }
    }

    #[test]
    fn what_does_not_divide_has_no_runs() {
        for (times, params) in [(0, 0), (0, 3), (2, 3), (4, 2)] {
            let odd = repeated(times, params);
            assert_eq!((odd.width(), odd.runs().len()), (None, 0));
            assert_eq!(odd.split().count(), 0);
        }
    }
}
