//! Takes the scripts and the version rows of Diesel's harness through the stages.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::query_builder::QueryFragment;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::sqlite::{BoundQuery, collect};
use litefs_rpc::wire::{RowSet, Statement, Value};

use super::super::LiteFsConnection;
use super::super::decide::phase::Phase;
use super::state::{Migrations, Stage};
use crate::access::Control;
use crate::error::called;
use crate::failure::Failure;
use crate::node::Node;

/// Diesel's statements about its table. No other text counts as the row of a migration's version.
const ENTERED: &str = "INSERT INTO `__diesel_schema_migrations` (`version`) VALUES (?)";
const REMOVED: &str =
    "DELETE FROM `__diesel_schema_migrations` WHERE (`__diesel_schema_migrations`.`version` = ?)";
const LIST: &str = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
/// Takes the write lock and changes nothing.
const LOCK: &str = "DELETE FROM __diesel_schema_migrations WHERE 0";
const FIND: &str = "SELECT 1 FROM __diesel_schema_migrations WHERE version = ?";
const TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE name = '__diesel_schema_migrations'";

/// Whether a statement enters a version (after `up.sql`) or removes one (after `down.sql`).
fn enters(statement: &Statement) -> Option<bool> {
    match statement.sql.as_str() {
        ENTERED => Some(true),
        REMOVED => Some(false),
        _ => None,
    }
}

impl LiteFsConnection {
    /// The harness begins: makes its table if there is none. If there is one, no statement leaves
    /// the node.
    pub(in crate::connection) fn begin_migrating(&mut self) -> QueryResult<usize> {
        let create = diesel::sql_query(diesel::migration::CREATE_MIGRATIONS_TABLE);
        let Some((node, _)) = self.remote.clustered() else { return self.execute(&create) };
        let node = Arc::clone(node);
        self.run_held_back(&node)?;
        self.migrations = Migrations::default();
        if self.query(TABLE, &[])?.is_empty() {
            self.execute(&create)?;
            if self.phase() == Phase::Autocommit {
                self.await_schema(&node)?;
            }
        }
        let list = Some(self.query(LIST, &[])?);
        self.migrations = Migrations::listed(list);
        Ok(0)
    }

    /// The pool gives the connection to another user, which may not be migrating.
    pub(in crate::connection) fn end_migrating(&mut self) {
        if self.phase() == Phase::Autocommit {
            self.migrations = Migrations::default();
        }
    }

    /// Queries Diesel's table. The application's instrumentation does not see it.
    fn query(&mut self, sql: &str, params: &[Value]) -> QueryResult<RowSet> {
        let _muted = self.local.mute();
        collect(self.load(BoundQuery::new(sql, params, true))?, usize::MAX)
            .map_err(|refusal| called(refusal.into(), None))
    }

    /// Runs a script or a transaction control statement, as the stage requires.
    pub(in crate::connection) fn script_or_migration(
        &mut self,
        node: &Arc<Node>,
        sql: &str,
    ) -> QueryResult<()> {
        if self.migrations.is_idle() || self.route_override.is_set() {
            self.run_held_back(node)?;
            return self.run_script(node, sql);
        }
        let control = match statements(sql).as_slice() {
            [only] => Control::of(only),
            _ => None,
        };
        match (self.migrations.leave(), control) {
            (Stage::Listed, Some(Control::Begin(None))) => {
                self.run_script(node, sql)?;
                self.migrations.begin();
                Ok(())
            }
            (Stage::Listed, _) => {
                self.migrations.enter(Stage::Listed);
                self.run_script(node, sql)
            }
            (Stage::Begun, None) => self.begin_migration(node, sql),
            // The application does not want what was held back.
            (Stage::Held(_), Some(Control::Rollback)) => self.run_script(node, sql),
            (Stage::Held(script), _) => {
                self.run_script(node, &script)?;
                self.script_or_migration(node, sql)
            }
            (Stage::Running, Some(Control::Commit)) if self.migrations.is_versioned() => {
                self.commit_migration(node, sql)
            }
            (
                Stage::Running,
                None | Some(Control::Savepoint(_) | Control::Release(_) | Control::RollbackTo(_)),
            ) => {
                self.migrations.enter(Stage::Running);
                self.run_script(node, sql)
            }
            // The end of a transaction that was no migration, or that failed.
            _ => self.run_script(node, sql),
        }
    }

    /// Takes the write lock, so that one node migrates at a time, and reads the list again.
    fn begin_migration(&mut self, node: &Arc<Node>, script: &str) -> QueryResult<()> {
        if self.phase() == Phase::LocalWrites {
            self.local.batch_execute_muted(LOCK)?;
        }
        let now = self.on_primary(|conn| conn.query(LIST, &[]))?;
        if self.migrations.is_current(&now) {
            self.migrations.enter(Stage::Running);
            return self.run_script(node, script);
        }
        self.migrations.set_list(None);
        self.migrations.enter(Stage::Held(script.to_owned()));
        Ok(())
    }

    fn commit_migration(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        // No other node can have changed it: the lock is held.
        let list = if self.migrations.has_list() { Some(self.query(LIST, &[])?) } else { None };
        self.run_script(node, sql)?;
        self.await_schema(node)?;
        self.migrations = Migrations::listed(list);
        Ok(())
    }

    /// To be called before any statement but a script or a change.
    pub(in crate::connection) fn before_statement(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        if self.migrations.awaits_script() { self.run_held_back(node) } else { Ok(()) }
    }

    pub(in crate::connection) fn run_held_back(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        match self.migrations.leave() {
            Stage::Held(script) => {
                self.migrations.enter(Stage::Running);
                // It was written before the route was forced.
                let route = self.route_override.replace(None);
                let result = self.run_script(node, &script);
                self.route_override.replace(route);
                result
            }
            Stage::Begun => {
                self.migrations.enter(Stage::Running);
                Ok(())
            }
            stage => {
                self.migrations.enter(stage);
                Ok(())
            }
        }
    }

    /// To be called before a statement that changes something. `true`: it is the row of a migration
    /// that another node has applied, or reverted, already.
    pub(in crate::connection) fn is_migrated_already<T>(
        &mut self,
        node: &Arc<Node>,
        query: &T,
    ) -> QueryResult<bool>
    where
        T: QueryFragment<Sqlite>,
    {
        if self.migrations.is_idle() {
            return Ok(false);
        }
        let statement = self.bind.capture(query)?;
        let Some(entered) = enters(&statement) else {
            return self.before_statement(node).map(|()| false);
        };
        self.migrations.set_versioned(true);
        let Stage::Held(script) = self.migrations.leave() else {
            let in_transaction = self.phase() != Phase::Autocommit;
            self.migrations.enter(if in_transaction { Stage::Running } else { Stage::Listed });
            return Ok(false);
        };
        self.migrations.enter(Stage::Running);
        let is_there = !self.on_primary(|conn| conn.query(FIND, &statement.params))?.is_empty();
        if is_there != entered {
            self.run_script(node, &script)?;
        }
        Ok(is_there == entered)
    }

    /// To be called after a change. Outside of a transaction it may be the version of a migration
    /// that wants none.
    pub(in crate::connection) fn after_change(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        if self.migrations.is_versioned() && self.phase() == Phase::Autocommit {
            self.migrations.set_versioned(false);
            let list = self.on_primary(|conn| conn.query(LIST, &[]))?;
            self.migrations.set_list(self.migrations.has_list().then_some(list));
            self.await_schema(node)?;
        }
        Ok(())
    }

    /// The application uses the schema next, perhaps in another process or without waiting for
    /// replication. So the schema is on this node when the migration returns.
    fn await_schema(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        let deadline = Instant::now() + node.options.forward_timeout;
        if self.visibility.wait_for_own_writes(node, deadline) {
            return Ok(());
        }
        // The migration is applied. What fails is the wait for it on this node.
        self.transaction.reset_manager();
        Err(Failure::SchemaSkew.error(format!(
            "the migration is applied, but this node has not received it within {:?}: \
             it runs behind the primary",
            node.options.forward_timeout
        )))
    }
}
