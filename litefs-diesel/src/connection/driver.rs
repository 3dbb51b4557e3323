//! The one loop that runs a statement: decide where, run it there, follow a change of the role.

use std::sync::Arc;

use diesel::result::QueryResult;
use litefs_rpc::wire::Command;

use super::LiteFsConnection;
use super::decide::destination::Destination;
use super::decide::phase::Phase;
use super::errors::{not_in_session, refusal};
use crate::access::{Access, Class};
use crate::failure::Failure;
use crate::node::Node;
use crate::router::Route;

/// How often the role may change during one statement before that is an error of its own. Nothing
/// is applied in the tries that meet a change.
const MAX_ROLE_CHANGES: usize = 16;

/// Work that runs on this node's file or on the primary. The [driver](LiteFsConnection::drive)
/// decides which, and calls the job again after a change of the role.
pub(super) trait Job {
    /// The result of the work.
    type Done;

    /// Whether the primary may run it through the writer, in one commit with others.
    const MAY_BE_GROUPED: bool;

    /// The SQL text, for routers and errors.
    fn sql(&self) -> QueryResult<String>;

    /// What the primary would have to run in its place. `None`: it has no meaning there.
    fn command(&self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Option<Command>>;

    /// Runs it on this node's file.
    fn run_here(&mut self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Self::Done>;

    /// Sends it to the primary. `None`: this node is the primary now.
    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<Self::Done>>;
}

/// Where a job runs, after everything that must happen before.
enum Plan {
    Here,
    There(Destination),
}

impl LiteFsConnection {
    /// Runs a job on this node's file or on the primary.
    pub(super) fn drive<J: Job>(
        &mut self,
        node: &Arc<Node>,
        mut class: Class,
        job: &mut J,
    ) -> QueryResult<J::Done> {
        if class.asks_session || class.sets_session {
            self.leave_snapshot(node)?;
        }
        for _ in 0..MAX_ROLE_CHANGES {
            self.follow_role(node)?;
            let done = match self.plan(node, class, job)? {
                Plan::Here => self.drive_here(node, &mut class, job)?,
                Plan::There(destination) => self.drive_there(node, class, &destination, job)?,
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(Failure::NoPrimary.error("the primary changed again and again while the statement ran"))
    }

    /// On this node's file: the commit is confirmed, an error is diagnosed. `None`: the role has
    /// changed, and nothing is applied.
    fn drive_here<J: Job>(
        &mut self,
        node: &Arc<Node>,
        class: &mut Class,
        job: &mut J,
    ) -> QueryResult<Option<J::Done>> {
        if self.phase() == Phase::LocalReads && class.access == Access::Read {
            // The function may give something else when it is called again.
            let work = if class.calls_application { None } else { job.command(self, *class)? };
            self.note_read(work);
        }
        self.commits.expect_none();
        let may_commit = class.access == Access::Write || class.may_write();
        let guard = if may_commit && self.phase() == Phase::Autocommit {
            let mixed = class.writes_locally && self.local.has_attached();
            self.commits.guard(node, &self.local, mixed)
        } else {
            None
        };
        let result = if class.writes_locally {
            self.with_writes_permitted(|conn| job.run_here(conn, *class))
        } else {
            job.run_here(self, *class)
        };
        self.ran_locally(*class);
        if result.is_ok() {
            self.commits.confirm(guard, node, &mut self.local)?;
        } else {
            self.adopt_open_transaction(node);
        }
        self.conclude(node, class, result)
    }

    /// Permits writes to temporary and attached databases, which `query_only` would refuse.
    fn with_writes_permitted<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        let before = self.local.lift_query_only()?;
        let result = write(self);
        self.local.restore_query_only(before)?;
        result
    }

    fn ran_locally(&mut self, class: Class) {
        if class.writes_locally && !class.vacuums {
            self.classes.clear();
            self.transaction.note_local_write();
        }
        self.session.ran_locally(&mut self.local, class);
    }

    fn drive_there<J: Job>(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
        job: &mut J,
    ) -> QueryResult<Option<J::Done>> {
        job.run_there(self, node, class, destination)
            .inspect_err(|error| self.session.failed_remotely(&mut self.local, class, error))
    }

    fn plan<J: Job>(&mut self, node: &Arc<Node>, class: Class, job: &J) -> QueryResult<Plan> {
        if class.refused {
            return Err(refusal(&job.sql()?));
        }
        self.local.check_query_only(class)?;
        let sql = || job.sql().unwrap_or_default();
        match self.destination(node, class, self.phase(), &sql) {
            Destination::Local if J::MAY_BE_GROUPED && self.is_grouped(node, class) => {
                Ok(Plan::There(Destination::Primary))
            }
            Destination::Local => self.plan_here(node, class, job),
            Destination::Reject(reason) => Err(Failure::Rejected.error(reason)),
            Destination::Split => Err(not_in_session(class)),
            Destination::Lost => Err(self.transaction.lost_error()),
            Destination::Demoted => Err(self.demoted()),
            elsewhere => Ok(Plan::There(elsewhere)),
        }
    }

    /// A read goes to the primary if this node does not have in time what it must see.
    fn plan_here<J: Job>(&mut self, node: &Arc<Node>, class: Class, job: &J) -> QueryResult<Plan> {
        if self.prepare_local(node, class)? == Route::Primary {
            let pending = self.phase() == Phase::Pending;
            return Ok(Plan::There(if pending { Destination::Move } else { Destination::Primary }));
        }
        if class.guessed && class.access == Access::Read {
            self.check_schema(node, &job.sql()?)?;
        }
        Ok(Plan::Here)
    }
}
