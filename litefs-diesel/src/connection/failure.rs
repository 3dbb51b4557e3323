//! What an error of a statement on this node's own file means, and what follows.

use std::sync::Arc;

use diesel::connection::{AnsiTransactionManager, SimpleConnection};
use diesel::result::{Error, QueryResult};
use litefs_core::Presence;
use litefs_rpc::diagnosis::{Diagnosis, NodeState, Symptom};

use super::LiteFsConnection;
use super::destination::Phase;
use crate::Failure;
use crate::access::{Access, Class};
use crate::error::{locked, mount_lost};
use crate::litefs::Shared;
use crate::own_name::name_or_host;
use crate::router::Route;

fn symptom(error: &Error) -> Symptom {
    match error {
        Error::DatabaseError(_, information) if Failure::of(error).is_none() => {
            Symptom::of(information.message())
        }
        _ => Symptom::Statement,
    }
}

/// Diagnoses an error. Blocks while LiteFS is asked, where the error is one that a role or a mount may explain.
fn diagnose(shared: &Shared, error: &Error, role_held: impl FnOnce() -> bool) -> Diagnosis {
    let symptom = symptom(error);
    if symptom.is_suspicious() {
        let tracker = shared.tracker.clone();
        shared.io.wait(async move { tracker.confirm().await });
    }
    let mount_served = shared.tracker.presence() != Presence::Lost;
    symptom.diagnose(NodeState { mount_served, role_held: role_held() })
}

fn storage(shared: &Shared, failure: Failure, error: &Error) -> Error {
    let node = name_or_host(&shared.tracker);
    let cause = match failure {
        Failure::DiskFull => "its disk is full",
        _ => "its disk may be full or broken",
    };
    failure.error(format!("{error}: node {node} cannot use its file, {cause}; nothing was applied"))
}

/// The error of a read, or of a statement after which nothing can be applied.
#[cold]
pub(crate) fn explained(shared: &Shared, error: Error) -> Error {
    match diagnose(shared, &error, || true) {
        Diagnosis::Statement | Diagnosis::Demoted => error,
        Diagnosis::Busy => locked(error),
        Diagnosis::MountLost => mount_lost(),
        Diagnosis::DiskFull => storage(shared, Failure::DiskFull, &error),
        Diagnosis::Io => storage(shared, Failure::Io, &error),
    }
}

impl LiteFsConnection {
    /// What a statement on this node's own file came to. `None`: nothing of it is applied, and the primary, wherever it is
    /// now, is to run it, as a write if it turned out to be one.
    pub(super) fn conclude<T>(
        &mut self,
        shared: &Arc<Shared>,
        class: &mut Class,
        result: QueryResult<T>,
    ) -> QueryResult<Option<T>> {
        let error = match result {
            Err(error) => error,
            result => return self.raced(result).map(Some),
        };
        let writes = class.access == Access::Write;
        let diagnosis = diagnose(shared, &error, || !writes || self.holds_role(shared));
        let autocommit = self.phase() == Phase::Autocommit;
        Err(match diagnosis {
            Diagnosis::Demoted | Diagnosis::MountLost
                if writes && autocommit && !self.read_only && self.forced != Some(Route::Local) =>
            {
                return Ok(None);
            }
            Diagnosis::Statement if self.was_a_write(shared, class, &error) => return Ok(None),
            Diagnosis::Statement => return self.raced(Err(error)),
            Diagnosis::Busy => return self.raced(Err(locked(error))),
            Diagnosis::Demoted if autocommit => error,
            Diagnosis::Demoted => self.demoted(),
            Diagnosis::MountLost => self.without_mount(),
            Diagnosis::DiskFull => self.storage_failed(shared, Failure::DiskFull, &error),
            Diagnosis::Io => self.storage_failed(shared, Failure::Io, &error),
        })
    }

    /// Whether the role is the one under which the statement, or the transaction that it is in, began.
    fn holds_role(&self, shared: &Shared) -> bool {
        let term_start = if self.phase() == Phase::LocalWrites { self.transaction.role } else { self.seen };
        term_start == Some(shared.tracker.stamp())
    }

    /// A statement needs this node's own file, whose mount is gone.
    pub(super) fn without_mount(&mut self) -> Error {
        match self.phase() {
            Phase::LocalReads | Phase::LocalWrites => {
                self.lose_local("LiteFS does not serve this node's mount any more")
            }
            _ => mount_lost(),
        }
    }

    /// SQLite may have rolled back the transaction, and nothing may run outside of it.
    fn storage_failed(&mut self, shared: &Shared, failure: Failure, error: &Error) -> Error {
        let typed = self.not_committed(shared, failure, error);
        if matches!(self.phase(), Phase::LocalReads | Phase::LocalWrites) {
            self.lose_local(&typed.to_string());
        }
        self.lost_race = false;
        typed
    }

    /// SQLite has taken a failed commit back, but LiteFS may have found it in the WAL: the position tells.
    fn not_committed(&self, shared: &Shared, failure: Failure, error: &Error) -> Error {
        let moved = |before| shared.tracker.read_position().ok() != Some(before);
        if self.committing_from.is_some_and(moved) {
            return Failure::OutcomeUnknown
                .error(format!("SQLite has failed ({error}), but the database has changed meanwhile"));
        }
        storage(shared, failure, error)
    }

    /// A statement that steers the transaction failed on this node's own file.
    pub(super) fn control_failed(&mut self, shared: &Shared, error: Error) -> Error {
        if self.phase() != Phase::LocalWrites {
            return explained(shared, error);
        }
        let (failed, again) = match diagnose(shared, &error, || self.holds_role(shared)) {
            Diagnosis::Statement => return error,
            Diagnosis::Busy => return locked(error),
            Diagnosis::Demoted => (
                Failure::TransactionLost
                    .error("LiteFS rejected the commit: this node is not the primary any more"),
                true,
            ),
            Diagnosis::MountLost => (
                Failure::TransactionLost
                    .error("nothing is committed: LiteFS does not serve this node's mount any more"),
                true,
            ),
            Diagnosis::DiskFull => (self.not_committed(shared, Failure::DiskFull, &error), false),
            Diagnosis::Io => (self.not_committed(shared, Failure::Io, &error), false),
        };
        // Fails only where SQLite has rolled back already.
        let _ = self.local.batch_execute("ROLLBACK");
        self.lost_race = again;
        self.transaction.end();
        self.manager = AnsiTransactionManager::default();
        failed
    }
}
