//! Runs a procedure on the executor's connection.

use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;

use super::connection::ExecutorConnection;
use crate::executor::Done;
use crate::sqlite::error::from_procedure;
use crate::sqlite::procedure::ProcedureError;
use crate::sqlite::session::integers;
use crate::wire::{Call, Output, ProcedureFault, ServerError};

/// What a procedure can leave behind on the connection: PRAGMAs, attached databases, and temporary
/// tables besides the executor's own.
const STATE: &str = "SELECT \
    (SELECT recursive_triggers FROM pragma_recursive_triggers), \
    (SELECT ignore_check_constraints FROM pragma_ignore_check_constraints), \
    (SELECT legacy_alter_table FROM pragma_legacy_alter_table), \
    (SELECT query_only FROM pragma_query_only), \
    (SELECT timeout FROM pragma_busy_timeout), \
    (SELECT synchronous FROM pragma_synchronous), \
    (SELECT cache_size FROM pragma_cache_size), \
    (SELECT count(*) FROM pragma_database_list WHERE seq > 1), \
    (SELECT count(*) FROM sqlite_temp_schema WHERE name <> 'litefs_rowid')";

fn state(sqlite: &mut SqliteConnection) -> QueryResult<[i64; 9]> {
    integers(sqlite, STATE)
}

impl ExecutorConnection {
    /// Runs a procedure in the open transaction. After an error nothing of it is applied, and the
    /// transaction is open unless the procedure has ended it.
    pub(super) fn call(&mut self, call: &Call, max_result: usize) -> Result<Done, ServerError> {
        let before = state(&mut self.sqlite);
        let run = self.procedures.run(&mut self.sqlite, &self.native, call);
        let fault = |fault| ServerError::Procedure {
            procedure: call.procedure.clone(),
            node: String::new(),
            fault,
        };
        let result = match run.map_err(fault)? {
            Ok(value) if value.len() > max_result => Err(ServerError::TooLarge {
                what: "the size of the procedure's result in bytes".into(),
                actual: value.len(),
                limit: max_result,
            }),
            Ok(value) => Ok(value),
            Err(ProcedureError::Failed(error)) => Err(from_procedure(error)),
            Err(ProcedureError::Panicked(panic)) => {
                self.altered = true;
                let message = ProcedureError::message(&*panic);
                Err(fault(ProcedureFault::Panicked { message }))
            }
            Err(ProcedureError::EndedTransaction) => Err(fault(ProcedureFault::EndedTransaction)),
        };
        let after = state(&mut self.sqlite);
        self.altered |= !matches!((before, after), (Ok(before), Ok(after)) if before == after);
        // Neither `total_changes()` nor another counter tells whether it has changed the schema.
        self.done(Output::Value(result?), None)
    }
}
