//! Just enough of SQLite's grammar to find where statements end and how they begin.
//!
//! What a statement does to the database is decided by SQLite's own planner; this module only
//! answers what the planner cannot be asked: where a script's statements are, and which statements
//! must not be prepared to be asked about (preparing a PRAGMA can run it). Source:
//! <https://www.sqlite.org/lang.html> and `sqlite3_complete`.

mod statement;
mod token;

pub(super) use statement::unquoted;
pub use statement::{Pragma, SqlStatement, Verb, statements};
pub use token::{Token, TokenKind, tokens};
