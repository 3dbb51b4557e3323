//! The tracking table's name, safe to put into SQL.

use std::fmt;
use std::str::FromStr;

use super::keywords::is_keyword;

/// A table name that can stand in SQL unquoted.
///
/// An ASCII letter or underscore first, then ASCII letters, digits and underscores; at most 63
/// characters; not one of SQLite's keywords (<https://www.sqlite.org/lang_keywords.html>) and not
/// in its reserved `sqlite_` space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName(String);

/// The text is not a [`TableName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", TableName::ALLOWED)]
pub struct TableNameError;

impl TableName {
    /// The longest name accepted, in characters.
    pub const MAX_LEN: usize = 63;

    pub(super) const ALLOWED: &str = "an ASCII letter or underscore, then letters, digits and \
        underscores, at most 63 characters, not an SQL keyword and not starting with `sqlite_`";

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TableName {
    /// `_litefs_primary`.
    fn default() -> Self {
        Self("_litefs_primary".to_owned())
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = text.bytes().next().ok_or(TableNameError)?;
        let shape = text.len() <= Self::MAX_LEN
            && !first.is_ascii_digit()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let reserved = text.to_ascii_lowercase().starts_with("sqlite_") || is_keyword(text);
        if shape && !reserved { Ok(Self(text.to_owned())) } else { Err(TableNameError) }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_a_table_name_that_is_not_an_identifier_is_refused() {
        let long = "a".repeat(64);
        let refused = [
            "",
            "x; DROP TABLE y",
            "1st",
            "a-b",
            "a b",
            "\"a\"",
            "a.b",
            "é",
            &long,
            "select",
            "TABLE",
            "Returning",
            "sqlite_master",
            "SQLITE_x",
        ];
        for text in refused {
            assert!(text.parse::<TableName>().is_err(), "{text:?} was accepted");
        }
        let accepted = [&long[..63], "_", "_litefs_primary", "T1", "tables"];
        for text in accepted {
            assert_eq!(text.parse::<TableName>().unwrap().as_str(), text);
        }
    }
}
