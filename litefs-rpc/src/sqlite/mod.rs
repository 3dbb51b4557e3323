//! SQLite through Diesel: the executor of forwarded work, and what it shares with the node that sends it.

mod checkpoint;
mod error;
mod executor;
mod functions;
mod group;
mod guard;
mod merge;
mod native;
mod once;
mod outcomes;
mod query;
mod readers;
mod ready;
mod rows;
pub mod sql;

pub use checkpoint::Checkpointer;
pub use error::{from_diesel, is_misshapen, to_diesel};
pub use executor::{Open, SqliteExecutor};
pub use functions::{MAKES_A_TRIGGER, application_functions};
pub use guard::refused_under_litefs;
pub use native::{Native, Opened};
pub use outcomes::{DEFAULT_RETENTION, OUTCOMES_TABLE, is_applied, settle};
pub use query::{BoundQuery, SqlType};
pub use readers::OpenReader;
pub use ready::{read_settings, session_functions};
pub use rows::{collect, value};
