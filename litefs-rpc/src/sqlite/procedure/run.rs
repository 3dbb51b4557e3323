//! Runs a procedure inside an open transaction, which it cannot end.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::SqliteConnection;

use crate::sqlite::native::Native;

const SAVEPOINT: &str = "SAVEPOINT litefs_procedure";
const RELEASE: &str = "RELEASE litefs_procedure";
const UNDO: &str = "ROLLBACK TO litefs_procedure; RELEASE litefs_procedure";

/// Why a procedure has no result. Nothing that it did is applied.
#[non_exhaustive]
pub enum ProcedureError {
    /// It returned this error, or its arguments or its result could not be encoded.
    Failed(Error),
    /// It panicked with this.
    Panicked(Box<dyn Any + Send>),
    /// It has ended the transaction in which it runs. All of that transaction is rolled back.
    EndedTransaction,
}

impl ProcedureError {
    /// The message of a panic.
    #[must_use]
    pub fn message(panic: &(dyn Any + Send)) -> String {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("with a value that is not text").to_owned()
    }
}

impl fmt::Debug for ProcedureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Panicked(panic) => {
                f.debug_tuple("Panicked").field(&Self::message(&**panic)).finish()
            }
            Self::EndedTransaction => f.write_str("EndedTransaction"),
        }
    }
}

/// Runs `procedure` between a savepoint and its release. Diesel counts the savepoint as the
/// outermost transaction, so that transactions inside are savepoints too. SQLite commits nothing
/// meanwhile.
pub(super) fn run(
    connection: &mut SqliteConnection,
    native: &Native,
    procedure: impl FnOnce(&mut SqliteConnection) -> QueryResult<Vec<u8>>,
) -> Result<Vec<u8>, ProcedureError> {
    AnsiTransactionManager::begin_transaction_sql(connection, SAVEPOINT)
        .map_err(ProcedureError::Failed)?;
    let run = AssertUnwindSafe(|| procedure(connection));
    let (result, committed) = native.refusing_commits(|| catch_unwind(run));
    // Whatever the procedure has left open ends with the savepoint.
    *connection.transaction_state() = AnsiTransactionManager::default();
    let result = match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ProcedureError::Failed(error)),
        Err(panic) => Err(ProcedureError::Panicked(panic)),
    };
    let end = if result.is_ok() && !committed { RELEASE } else { UNDO };
    let ended = connection.batch_execute(end).is_err();
    if ended && !native.is_autocommit() {
        // Another transaction than the one in which the procedure began.
        let _ = connection.batch_execute("ROLLBACK");
    }
    match result {
        // SQLite has turned its COMMIT into a ROLLBACK, whatever the procedure made of that.
        Ok(_) if ended => Err(ProcedureError::EndedTransaction),
        Err(ProcedureError::Failed(_)) if committed => Err(ProcedureError::EndedTransaction),
        result => result,
    }
}
