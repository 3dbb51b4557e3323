//! What an error of a statement on this node's own file means, and what follows.

use std::sync::Arc;

use diesel::result::{Error, QueryResult};
use litefs_rpc::diagnosis::Diagnosis;

use super::LiteFsConnection;
use super::decide::phase::Phase;
use super::local::is_writable;
use crate::access::{Access, Class};
use crate::error::{locked, mount_lost};
use crate::failure::Failure;
use crate::node::Node;
use crate::node::diagnosis::{diagnose, explained, storage};

impl LiteFsConnection {
    /// The result of a statement on this node's own file. `None`: nothing of it is applied, and the
    /// primary, wherever it is now, is to run it, as a write if it turned out to be one.
    pub(super) fn conclude<T>(
        &mut self,
        node: &Arc<Node>,
        class: &mut Class,
        result: QueryResult<T>,
    ) -> QueryResult<Option<T>> {
        let error = match result {
            Err(error) => error,
            result => return self.transaction.map_conflict(result).map(Some),
        };
        let writes = class.access == Access::Write;
        let diagnosis = diagnose(node, &error, || !writes || self.holds_role(node));
        let autocommit = self.phase() == Phase::Autocommit;
        let may_forward = !self.local.is_read_only() && !self.route_override.is_local();
        Err(match diagnosis {
            Diagnosis::Demoted | Diagnosis::MountLost if writes && autocommit && may_forward => {
                return Ok(None);
            }
            Diagnosis::Statement if self.was_a_write(node, class, &error) => return Ok(None),
            Diagnosis::Statement => return self.transaction.map_conflict(Err(error)),
            Diagnosis::Busy => return self.transaction.map_conflict(Err(locked(error))),
            Diagnosis::Demoted if autocommit => error,
            Diagnosis::Demoted => self.demoted(),
            Diagnosis::MountLost => self.without_mount(),
            Diagnosis::DiskFull => self.storage_failed(node, Failure::DiskFull, &error),
            Diagnosis::Io => self.storage_failed(node, Failure::Io, &error),
        })
    }

    /// Whether the role is the one under which the statement, or the transaction that it is in,
    /// began.
    fn holds_role(&self, node: &Node) -> bool {
        let role_at_begin = if self.phase() == Phase::LocalWrites {
            self.transaction.role()
        } else {
            self.local.prepared_for()
        };
        role_at_begin == Some(node.tracker.stamp())
    }

    /// Whether a statement that failed here should run on the primary as a write. SQLite has
    /// classified it as a read, but it calls a function of the application that may have tried to
    /// write. Nothing of it was applied.
    fn was_a_write(&self, node: &Node, class: &mut Class, error: &Error) -> bool {
        let in_sql = matches!(error, Error::DatabaseError(..)) && Failure::of(error).is_none();
        let may_move = !self.route_override.is_local() && !is_writable(node);
        let was = class.may_write() && in_sql && may_move;
        if was {
            class.access = Access::Write;
        }
        was
    }

    /// A statement needs this node's own file, whose mount is gone.
    pub(super) fn without_mount(&mut self) -> Error {
        if self.phase().is_local() {
            self.lose_local("LiteFS does not serve this node's mount any more")
        } else {
            mount_lost()
        }
    }

    /// SQLite may have rolled back the transaction, and no statement may run outside of it.
    fn storage_failed(&mut self, node: &Node, failure: Failure, error: &Error) -> Error {
        let typed = self.not_committed(node, failure, error);
        if self.phase().is_local() {
            self.lose_local(&typed.to_string());
        }
        self.transaction.set_retryable_conflict(false);
        typed
    }

    /// SQLite has undone a failed commit, but LiteFS may have found it in the WAL. The position
    /// tells.
    fn not_committed(&self, node: &Node, failure: Failure, error: &Error) -> Error {
        if self.commits.has_moved(node) {
            return Failure::OutcomeUnknown.error(format!(
                "SQLite has failed ({error}), but the database has changed meanwhile"
            ));
        }
        storage(node, failure, error)
    }

    /// A transaction control statement has failed on this node's own file.
    pub(super) fn control_failed(&mut self, node: &Node, error: Error) -> Error {
        if self.phase() != Phase::LocalWrites {
            return explained(node, error);
        }
        let (failed, retryable) = match diagnose(node, &error, || self.holds_role(node)) {
            Diagnosis::Statement => return error,
            Diagnosis::Busy => return locked(error),
            Diagnosis::Demoted => (
                Failure::TransactionLost
                    .error("LiteFS rejected the commit: this node is not the primary any more"),
                true,
            ),
            Diagnosis::MountLost => (
                Failure::TransactionLost.error(
                    "nothing is committed: LiteFS does not serve this node's mount any more",
                ),
                true,
            ),
            Diagnosis::DiskFull => (self.not_committed(node, Failure::DiskFull, &error), false),
            Diagnosis::Io => (self.not_committed(node, Failure::Io, &error), false),
        };
        self.local.roll_back();
        self.transaction.set_retryable_conflict(retryable);
        self.transaction.end_failed_commit();
        failed
    }
}
