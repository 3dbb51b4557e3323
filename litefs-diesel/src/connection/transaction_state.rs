//! What is known of the connection's transaction; [`transaction`](super::transaction) moves it.

use diesel::result::{Error, QueryResult};
use litefs_core::{Position, RoleStamp};

use super::destination::Phase;
use super::remote::session::Session;
use super::transaction::sqlite_error;
use crate::Failure;
use crate::access::Control;

/// The connection's transaction as SQL sees it.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) stage: Stage,
    /// The role under which it was opened on this node's own file.
    pub(super) role: Option<RoleStamp>,
    /// Open savepoints, outermost first.
    pub(super) savepoints: Vec<String>,
    /// Begun by a SAVEPOINT instead of BEGIN: ends with its RELEASE.
    pub(super) implicit: bool,
    /// Temporary or attached tables were changed in it: it cannot leave this node any more.
    pub(super) wrote_here: bool,
    /// The database was changed in it, on the primary.
    pub(super) wrote_there: bool,
    /// The same, or something that `total_changes()` does not count.
    pub(super) may_have_written: bool,
}

#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    None,
    Pending,
    /// `seen`: the position of the replica's snapshot; `None` on a node that could write when it
    /// began.
    Local {
        seen: Option<Position>,
    },
    Remote(Session),
    Lost(String),
}

impl Transaction {
    pub(super) fn phase(&self) -> Phase {
        match &self.stage {
            Stage::None => Phase::Autocommit,
            Stage::Pending => Phase::Pending,
            Stage::Local { seen: Some(_) } => Phase::LocalReads,
            Stage::Local { seen: None } => Phase::LocalWrites,
            Stage::Remote(_) => Phase::Remote,
            Stage::Lost(_) => Phase::Lost,
        }
    }

    pub(super) fn note_local_write(&mut self) {
        self.wrote_here = self.phase() != Phase::Autocommit;
    }

    /// Whether `control` releases the savepoint that began the transaction.
    pub(super) fn ends_by(&self, control: &Control) -> bool {
        match control {
            Control::Release(name) => {
                self.implicit && self.position_of(name).is_ok_and(|at| at == 0)
            }
            _ => false,
        }
    }

    /// Keeps the list of savepoints as SQLite has it.
    pub(super) fn note(&mut self, control: &Control) -> QueryResult<()> {
        match control {
            Control::Begin(_) => {}
            Control::Commit | Control::Rollback => self.end(),
            Control::Savepoint(name) => self.savepoints.push(name.clone()),
            Control::Release(_) if self.ends_by(control) => self.end(),
            Control::Release(name) => {
                let at = self.position_of(name)?;
                self.savepoints.truncate(at);
            }
            Control::RollbackTo(name) => {
                let at = self.position_of(name)?;
                self.savepoints.truncate(at + 1);
            }
        }
        Ok(())
    }

    pub(super) fn lose(&mut self, reason: &str) {
        self.stage = Stage::Lost(reason.into());
    }

    pub(super) fn lost(&self) -> Error {
        match &self.stage {
            Stage::Lost(reason) => Failure::TransactionLost.error(reason),
            _ => Failure::TransactionLost.error("the transaction is gone"),
        }
    }

    pub(super) fn position_of(&self, name: &str) -> QueryResult<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.eq_ignore_ascii_case(name))
            .ok_or_else(|| sqlite_error(format!("no such savepoint: {name}")))
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
