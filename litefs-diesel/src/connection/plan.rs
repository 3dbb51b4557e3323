//! Where a statement runs, and what has to be true before it runs on this node's file.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_core::{RoleKind, RoleStamp};
use litefs_rpc::sqlite::BoundQuery;

use super::LiteFsConnection;
use super::classes::{Classes, Classifier};
use super::decide::destination::{Destination, destination};
use super::decide::phase::Phase;
use super::errors::is_behind;
use super::local::is_writable;
use super::visibility::primary_position;
use crate::access::{Access, Class};
use crate::failure::Failure;
use crate::node::Node;
use crate::node::diagnosis::explained;
use crate::options::local_writes::LocalWrites;
use crate::router::{Route, Situation};

impl LiteFsConnection {
    /// Whether a query can run on the local file at once: the fast path of the most frequent
    /// statement of a replica. It must never say yes where the [driver](Self::drive) would decide
    /// otherwise.
    #[inline]
    pub(super) fn is_fast_path<T: QueryId>(&self, node: &Node, stamp: RoleStamp) -> bool {
        let here = node.tracker.last_txid();
        self.visibility.is_met(node, here)
            && node.read_throttle.may_read(here)
            && self.local.prepared_for() == Some(stamp)
            && !self.route_override.is_set()
            && self.phase() == Phase::Autocommit
            && node.reads_locally
            && self.classes.is_plain_read::<T>()
    }

    pub(super) fn phase(&self) -> Phase {
        self.transaction.phase()
    }

    pub(super) fn class_of<T>(&mut self, query: &T) -> QueryResult<Class>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let (classes, mut classifier) = self.classifier();
        classes.of_query(&mut classifier, query)
    }

    pub(super) fn class_of_text(&mut self, sql: &str) -> Class {
        let (classes, mut classifier) = self.classifier();
        classes.of_text(&mut classifier, sql)
    }

    pub(super) fn classifier(&mut self) -> (&mut Classes, Classifier<'_>) {
        let node = self.remote.node().map(Arc::as_ref);
        let (local, session) = (&mut self.local, &mut self.session);
        (&mut self.classes, Classifier { local, session, node })
    }

    /// Prepares the local connection for the role as it is now.
    pub(super) fn follow_role(&mut self, node: &Node) -> QueryResult<()> {
        if self.phase().is_local() && self.local.is_autocommit() {
            // An error of the statement before, or `OR ROLLBACK`: no statement may run outside of
            // its transaction.
            self.transaction.lose("SQLite has rolled it back, because of an error in it");
        }
        if matches!(self.phase(), Phase::Autocommit | Phase::Pending) && is_writable(node) {
            node.await_handoff();
        }
        self.local.prepare(node)
    }

    /// Where a statement runs. `sql` is built only for routers that look at it.
    pub(super) fn destination(
        &self,
        node: &Node,
        class: Class,
        phase: Phase,
        sql: &dyn Fn() -> String,
    ) -> Destination {
        let role = node.tracker.stamp().kind();
        let writable = matches!(role, RoleKind::Primary | RoleKind::Standalone);
        if self.local.is_read_only() && class.access == Access::Write && phase != Phase::Lost {
            // SQLite refuses it.
            return Destination::Local;
        }
        destination(class, writable, phase, || match self.route_override.route() {
            Some(route) => route.clone(),
            None => {
                let in_transaction = phase != Phase::Autocommit;
                let situation = Situation::of(class.access, role, in_transaction, sql);
                node.options.router.route(&situation)
            }
        })
    }

    /// Whether a statement that would write here, on the primary, goes through the writer instead.
    pub(super) fn is_grouped(&self, node: &Node, class: Class) -> bool {
        node.options.local_writes == LocalWrites::Grouped
            && class.access == Access::Write
            && !class.split
            && self.phase() == Phase::Autocommit
            && !self.route_override.is_local()
            && !self.local.is_read_only()
            && node.serves()
    }

    /// Before a statement that runs on the local file: takes the snapshot of a pending transaction,
    /// or waits. `Route::Primary`: the local file does not have in time what the statement must
    /// see.
    pub(super) fn prepare_local(&mut self, node: &Arc<Node>, class: Class) -> QueryResult<Route> {
        let phase = self.phase();
        let reads = class.access == Access::Read;
        let concerns_transaction =
            class.access != Access::Local || class.writes_locally || class.sets_session;
        let begins = phase == Phase::Pending && concerns_transaction;
        let needs_file = class.access != Access::Local || class.writes_locally;
        if self.local.prepared_for().is_none() && needs_file {
            return Err(self.without_mount());
        }
        // The snapshot is for all that the transaction does, whatever begins it; and what fills a
        // temporary table may read the database.
        if begins || (phase == Phase::Autocommit && (reads || class.writes_locally)) {
            match self.catch_up_for(node, class)? {
                Route::Primary if reads => return Ok(Route::Primary),
                // A copy must not lack what the primary has.
                Route::Primary if class.copies => return Err(is_behind(node)),
                _ => {}
            }
        }
        if begins {
            self.begin_local(node).map_err(|error| explained(node, error))?;
        }
        Ok(Route::Local)
    }

    /// Waits for what the statement must find in the local file. With a forced route to this node
    /// it does not wait. VACUUM INTO with a forced route to the primary waits for all that the
    /// primary has.
    fn catch_up_for(&mut self, node: &Arc<Node>, class: Class) -> QueryResult<Route> {
        match self.route_override.route() {
            Some(Route::Local) => Ok(Route::Local),
            Some(Route::Primary) if class.copies => self.visibility.catch_up_with_primary(node),
            _ => self.visibility.before_local_read(node),
        }
    }

    /// Before a statement that SQLite could not prepare here. Its class is determined again,
    /// because the schema may have arrived since. If the primary is ahead of this node, the error
    /// says that the schema may be on its way, instead of SQLite's "no such table".
    pub(super) fn check_schema(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        let on_replica = node.tracker.stamp().kind() == RoleKind::Replica;
        if !on_replica
            || self.route_override.is_set()
            || !self.classifier().1.classify_text(sql).guessed
        {
            return Ok(());
        }
        let Some(missing) = self.missing_here(sql) else { return Ok(()) };
        let deadline = Instant::now() + node.options.read_timeout;
        let ahead = primary_position(node, deadline).map(|marks| marks.highest());
        let here = node.tracker.read_position().map(|position| position.txid);
        match (ahead, here) {
            (Ok(ahead), Ok(here)) if ahead > here => Err(Failure::SchemaSkew.error(format!(
                "{missing}; this node is at transaction {here}, the primary is at {ahead}: \
                 the schema may be on its way"
            ))),
            _ => Ok(()),
        }
    }

    /// SQLite's message if a part of the schema is missing here; `None` where the statement fails
    /// for another reason.
    fn missing_here(&mut self, sql: &str) -> Option<String> {
        let _muted = self.local.mute();
        let explain = format!("EXPLAIN {sql}");
        let prepared = self.local.sqlite().load(BoundQuery::new(&explain, &[], false));
        let message = prepared.err()?.to_string();
        let missing = ["no such table", "no such column", "no such index"];
        missing.iter().any(|missing| message.starts_with(missing)).then_some(message)
    }
}
