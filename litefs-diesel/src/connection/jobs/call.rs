//! A call of a remote procedure.

use std::sync::Arc;

use diesel::connection::StrQueryHelper;
use diesel::result::QueryResult;
use litefs_rpc::sqlite::{Procedure, ProcedureError};
use litefs_rpc::wire::{Call, Command, Output, ProcedureFault};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::LiteFsConnection;
use super::super::decide::destination::Destination;
use super::super::driver::Job;
use crate::Failure;
use crate::access::{Access, Class};
use crate::node::Node;

struct CallJob<'a, A, R> {
    procedure: &'a Procedure<A, R>,
    call: Arc<Call>,
}

/// A call may change the database, and what it does is not known.
const CLASS: Class = Class { access: Access::Write, counts: true, inserts: true, ..Class::NOTHING };

impl<A, R> Job for CallJob<'_, A, R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// The encoded result.
    type Done = Vec<u8>;
    const MAY_BE_GROUPED: bool = false;

    fn sql(&self) -> QueryResult<String> {
        Ok(format!("CALL {}", self.procedure.name()))
    }

    fn command(&self, _: &mut LiteFsConnection, _: Class) -> QueryResult<Option<Command>> {
        Ok(Some(Command::Call(Arc::clone(&self.call))))
    }

    /// In a transaction of its own, if none is open.
    fn run_here(&mut self, conn: &mut LiteFsConnection, _: Class) -> QueryResult<Vec<u8>> {
        let alone = conn.local.is_autocommit();
        if alone {
            conn.local.batch_execute("BEGIN IMMEDIATE")?;
        }
        let mut result = conn.local.run_procedure(self.procedure, &self.call);
        if alone && result.is_ok() {
            let committed = conn.local.batch_execute("COMMIT").map_err(ProcedureError::Failed);
            result = committed.and(result);
        }
        // It may have set PRAGMAs.
        conn.session.settings_changed();
        if alone && result.is_err() {
            conn.local.roll_back();
        }
        result.map_err(|error| match error {
            ProcedureError::Failed(error) => error,
            ProcedureError::Panicked(panic) => std::panic::resume_unwind(panic),
            _ => {
                let (name, fault) = (self.procedure.name(), ProcedureFault::EndedTransaction);
                Failure::ProcedureFailed.error(format!("the procedure {name:?} {fault}"))
            }
        })
    }

    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<Vec<u8>>> {
        let (text, work) = (self.sql()?, Command::Call(Arc::clone(&self.call)));
        let reply = conn.reporting_text(&StrQueryHelper::new(&text), |conn| {
            conn.dispatch(node, class, destination, work)
        })?;
        match reply.map(|reply| reply.answer) {
            None => Ok(None),
            Some(Output::Value(value)) => Ok(Some(value)),
            Some(other) => {
                Err(Failure::Protocol.error(format!("a call was answered with {other:?}")))
            }
        }
    }
}

impl LiteFsConnection {
    /// Runs a procedure on the primary, in one transaction and one round trip. It is applied once,
    /// whatever happens on the way, or not at all ([`Delivery`](crate::Delivery)).
    ///
    /// Every node must have [registered](crate::LiteFs::procedure) it, because any may be the
    /// primary. On the primary, and without LiteFS, it runs on this connection. Inside a
    /// transaction it is a step of that: an error takes back what the procedure has done, and
    /// leaves the transaction open. A router sees a write with the text `CALL` and the name.
    /// Blocks, at most `forward_timeout` on another node: a procedure that takes longer there
    /// continues, and the call fails with [`Failure::OutcomeUnknown`].
    ///
    /// # Errors
    /// The error that the procedure returns: its kind and message, wherever it ran.
    /// [`Failure::NoProcedure`] names a node that has no such procedure, or one with other types.
    /// [`Failure::ProcedureFailed`] if it panicked on another node, or has ended its own
    /// transaction. [`Failure::RowsLost`] if it is applied, but its result is lost. All others are
    /// as for any write.
    ///
    /// # Panics
    /// If the procedure runs on this connection and panics. What it did is rolled back.
    pub fn call<A, R>(&mut self, procedure: &Procedure<A, R>, args: &A) -> QueryResult<R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut job = CallJob { procedure, call: Arc::new(procedure.call(args)?) };
        let value = match self.remote.clustered() {
            Some((node, _)) => {
                let node = Arc::clone(node);
                self.drive(&node, CLASS, &mut job)?
            }
            None => job.run_here(self, CLASS)?,
        };
        procedure.result(&value).map_err(|error| {
            let name = procedure.name();
            Failure::RowsLost.error(format!(
                "the procedure {name:?} is applied, once; its result cannot be read: {error}"
            ))
        })
    }
}
