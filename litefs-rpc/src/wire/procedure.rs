//! Calls of remote procedures: functions that every node has registered under a name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A call of a procedure. The primary runs it in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The procedure's name.
    pub procedure: String,
    /// A digest of the types of its arguments and its result, and of its version. A node whose
    /// procedure has another one does not run it.
    pub signature: u128,
    /// The encoded arguments.
    pub args: Vec<u8>,
}

impl Call {
    /// The bytes that this adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.procedure.len().saturating_add(self.args.len()).saturating_add(32)
    }
}

/// Why a procedure has no result. Nothing that it did is applied.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcedureFault {
    /// The node has registered no procedure of this name.
    Unknown,
    /// The node has registered a procedure of this name with other types or another version.
    Differs {
        /// The types and the version there.
        there: String,
    },
    /// The node speaks a version of the protocol that has no procedures.
    OldProtocol,
    /// It panicked.
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// It has ended the transaction in which it runs.
    EndedTransaction,
}

/// Continues a sentence that begins with the procedure.
impl fmt::Display for ProcedureFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("is not registered"),
            Self::Differs { there } => write!(f, "is registered as {there}"),
            Self::OldProtocol => f.write_str("needs a later version of the protocol"),
            Self::Panicked { message } => write!(f, "panicked ({message})"),
            Self::EndedTransaction => f.write_str("has ended its own transaction"),
        }
    }
}
