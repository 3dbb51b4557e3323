//! Remote procedures: functions that every node registers under a name, to be run by the primary.

mod run;
mod shape;

use std::collections::HashMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use bincode::Options;
use diesel::result::{Error, QueryResult};
use diesel::sqlite::SqliteConnection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

pub use self::run::ProcedureError;
use self::shape::Shape;
use super::native::Native;
use crate::wire::{Call, ProcedureFault};

/// A function that changes the database, with the name under which every node has it.
///
/// ```
/// use diesel::prelude::*;
/// # use litefs_rpc::sqlite::Procedure;
/// use serde::{Deserialize, Serialize};
///
/// diesel::table! { account { id -> Integer, balance -> BigInt, } }
///
/// #[derive(Serialize, Deserialize)]
/// struct Transfer { from: i32, to: i32, amount: i64 }
///
/// static TRANSFER: Procedure<Transfer, i64> = Procedure::new("transfer", |conn, transfer| {
///     let Transfer { from, to, amount } = transfer;
///     let left: i64 = diesel::update(account::table.find(from))
///         .set(account::balance.eq(account::balance - amount))
///         .returning(account::balance)
///         .get_result(conn)?;
///     diesel::update(account::table.find(to))
///         .set(account::balance.eq(account::balance + amount))
///         .execute(conn)?;
///     // An error rolls the transaction back.
///     if left < 0 { Err(diesel::result::Error::RollbackTransaction) } else { Ok(left) }
/// });
/// ```
///
/// It runs inside a transaction that has the write lock, so `conn.transaction` inside opens a
/// savepoint. It must not end that transaction: a COMMIT or ROLLBACK of its own fails the call. The
/// PRAGMAs of the caller's connection hold ([`Settings`](crate::wire::Settings)). It should set
/// none itself, and make no temporary tables: on another node they end with the call.
///
/// # Signature
/// A call carries a digest of the shape of both types as their `Deserialize` describes it (names of
/// types, fields and variants, kinds of values), and of the [version](Self::version). So a node
/// with an older or a newer procedure does not misread the arguments. The shape ends where a type
/// refuses the made-up value that it is asked to read, as a parsed string may. A change behind
/// that, or of what the function does with the same types, needs another version or another name.
pub struct Procedure<A, R> {
    name: &'static str,
    version: u32,
    function: Function<A, R>,
    signature: OnceLock<Signature>,
}

type Function<A, R> = fn(&mut SqliteConnection, A) -> QueryResult<R>;

/// What two nodes must agree on, and its digest.
struct Signature {
    text: String,
    digest: u128,
}

/// The longest text of a signature in an error message, in bytes.
const MAX_TEXT: usize = 400;

impl Signature {
    fn of<A: DeserializeOwned, R: DeserializeOwned>(version: u32) -> Self {
        let (args, result) = (Shape::of::<A>(), Shape::of::<R>());
        let mut hash = Sha256::new();
        for part in [&args.whole, &result.whole] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(version.to_le_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        let mut text = format!("version {version}, {} -> {}", args.text, result.text);
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.push_str("..");
        }
        Self { text, digest: u128::from_le_bytes(first) }
    }
}

impl<A, R> Procedure<A, R> {
    /// A procedure of version 0. The name must be the same on every node, and no other procedure
    /// may have it.
    #[must_use]
    pub const fn new(name: &'static str, function: Function<A, R>) -> Self {
        Self { name, version: 0, function, signature: OnceLock::new() }
    }

    /// Sets the version, which is part of the signature: to be changed with what the function does.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<A, R> Procedure<A, R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    fn signature(&self) -> &Signature {
        self.signature.get_or_init(|| Signature::of::<A, R>(self.version))
    }

    /// A call with these arguments.
    ///
    /// # Errors
    /// [`Error::SerializationError`] if they cannot be encoded.
    pub fn call(&self, args: &A) -> QueryResult<Call> {
        let args = bincode::options().serialize(args);
        Ok(Call {
            procedure: self.name.into(),
            signature: self.signature().digest,
            args: args.map_err(|error| Error::SerializationError(error))?,
        })
    }

    /// Reads the result of a call.
    ///
    /// # Errors
    /// [`Error::DeserializationError`] if its type cannot read what it has written.
    pub fn result(&self, encoded: &[u8]) -> QueryResult<R> {
        bincode::options().deserialize(encoded).map_err(|error| Error::DeserializationError(error))
    }

    /// Runs the procedure in the transaction that is open on the connection, as the primary does.
    /// After an error nothing of it is applied. Blocks.
    ///
    /// # Errors
    /// See [`ProcedureError`].
    pub fn run(
        &self,
        connection: &mut SqliteConnection,
        native: &Native,
        call: &Call,
    ) -> Result<Vec<u8>, ProcedureError> {
        run::run(connection, native, |connection| self.run_encoded(connection, &call.args))
    }

    fn run_encoded(&self, connection: &mut SqliteConnection, args: &[u8]) -> QueryResult<Vec<u8>> {
        let args = bincode::options()
            .deserialize(args)
            .map_err(|error| Error::DeserializationError(error))?;
        let result = (self.function)(connection, args)?;
        bincode::options().serialize(&result).map_err(|error| Error::SerializationError(error))
    }
}

impl<A, R> fmt::Debug for Procedure<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Procedure")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A procedure of any types.
trait Registered: Send + Sync {
    fn signature(&self) -> &Signature;

    fn run(&self, connection: &mut SqliteConnection, args: &[u8]) -> QueryResult<Vec<u8>>;
}

impl<A, R> Registered for Procedure<A, R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    fn signature(&self) -> &Signature {
        Procedure::signature(self)
    }

    fn run(&self, connection: &mut SqliteConnection, args: &[u8]) -> QueryResult<Vec<u8>> {
        self.run_encoded(connection, args)
    }
}

/// The procedures of a node.
#[derive(Default)]
pub struct Procedures {
    by_name: RwLock<HashMap<&'static str, &'static dyn Registered>>,
}

impl Procedures {
    /// Adds a procedure, or puts it in the place of the one of its name.
    pub fn register<A, R>(&self, procedure: &'static Procedure<A, R>)
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(procedure.name, procedure);
    }

    /// Runs the procedure that a call names in the open transaction. The outer error: it cannot be
    /// run.
    pub(super) fn run(
        &self,
        connection: &mut SqliteConnection,
        native: &Native,
        call: &Call,
    ) -> Result<Result<Vec<u8>, ProcedureError>, ProcedureFault> {
        let procedure = self.find(call)?;
        Ok(run::run(connection, native, |connection| procedure.run(connection, &call.args)))
    }

    fn find(&self, call: &Call) -> Result<&'static dyn Registered, ProcedureFault> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let found = by_name.get(&*call.procedure).copied().ok_or(ProcedureFault::Unknown)?;
        let Signature { text, digest } = found.signature();
        if *digest == call.signature {
            Ok(found)
        } else {
            Err(ProcedureFault::Differs { there: text.clone() })
        }
    }
}

impl fmt::Debug for Procedures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(by_name.keys()).finish()
    }
}
