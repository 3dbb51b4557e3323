//! SQLite through Diesel: the executor of forwarded commands, and helpers shared with the node that
//! sends them.

mod checkpoint;
mod error;
mod executor;
mod functions;
mod guard;
mod native;
mod outcomes;
mod procedure;
mod query;
mod readers;
mod rows;
mod run;
mod session;
pub mod sql;
mod text;

pub use checkpoint::Checkpointer;
pub use error::{from_diesel, is_misshapen, to_diesel};
pub use executor::{Positions, SqliteExecutor};
pub use functions::{MAKES_A_TRIGGER, WRITING_FUNCTIONS, application_functions, has_function};
pub use guard::refused_under_litefs;
pub use native::{Native, Open, Opened, ReadPosition, TransactionEnder};
pub use outcomes::{DEFAULT_RETENTION, OUTCOMES_TABLE, is_applied, resolve_outcome};
pub use procedure::{Procedure, ProcedureError, Procedures};
pub use query::{BoundQuery, SqlType};
pub use readers::OpenReader;
pub use rows::{collect, value};
pub use run::run;
pub use session::{read_settings, session_functions};
