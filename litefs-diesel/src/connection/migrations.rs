//! Migrations from any node, each applied once however many nodes start at the same time.
//!
//! Diesel's harness ([`diesel_migrations`](https://docs.rs/diesel_migrations)) lists what was
//! applied, then runs each pending migration in a transaction of its own, which ends by entering
//! the migration's version. Between the list and the transaction another node may have applied it.
//! So a transaction that begins with a script, on a connection that has asked for the list, takes
//! the write lock and looks at the list again:
//!
//! ```text
//! Idle --setup--> Listed --BEGIN--> Begun --script--> the list is the same: the script runs
//!                   ^                                 another list: Held --version's row--> run,
//!                   |                                                        unless it is there
//!                   '---------------------COMMIT of a transaction with a version's row---'
//! ```
//!
//! Only the version tells which migration a transaction is about, and it comes last. Where the list
//! has changed, the script is therefore held back until the version is known, and runs only if
//! nobody has entered that. Anything else that comes first makes it run at once.
//!
//! A migration that does not begin with a script, written in Rust, or that wants no transaction is
//! not held back: of two nodes that run it at once one fails.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::query_builder::QueryFragment;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::sqlite::{BoundQuery, collect};
use litefs_rpc::wire::{RowSet, Statement, Value};

use super::LiteFsConnection;
use super::decide::phase::Phase;
use super::local::is_writable;
use crate::Failure;
use crate::access::Control;
use crate::node::Node;

/// What Diesel says of its table, word for word: nothing else is taken for a migration's version.
const ENTERED: &str = "INSERT INTO `__diesel_schema_migrations` (`version`) VALUES (?)";
const REMOVED: &str =
    "DELETE FROM `__diesel_schema_migrations` WHERE (`__diesel_schema_migrations`.`version` = ?)";
const LIST: &str = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
/// Takes the write lock and changes nothing.
const LOCK: &str = "DELETE FROM __diesel_schema_migrations WHERE 0";
const FIND: &str = "SELECT 1 FROM __diesel_schema_migrations WHERE version = ?";
const TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE name = '__diesel_schema_migrations'";

/// How far the connection has come in what Diesel's harness does.
#[derive(Debug, Default)]
pub(super) struct Migrations {
    stage: Stage,
    /// What was applied when the harness asked, and what it has applied since; `None` once others
    /// have applied something in between.
    list: Option<RowSet>,
    /// The open transaction, or the statement that runs, has changed a version's row.
    versioned: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// The harness has asked what is applied.
    Listed,
    /// A transaction has begun after that, nothing has run in it.
    Begun,
    /// Its script waits for the version.
    Held(String),
    /// It runs.
    Running,
}

/// Whether a statement enters a version (after `up.sql`) or removes one (after `down.sql`).
fn enters(statement: &Statement) -> Option<bool> {
    match statement.sql.as_str() {
        ENTERED => Some(true),
        REMOVED => Some(false),
        _ => None,
    }
}

impl LiteFsConnection {
    /// The harness begins: makes its table where there is none. With the table in place nothing
    /// leaves the node.
    pub(super) fn begin_migrating(&mut self) -> QueryResult<usize> {
        let create = diesel::sql_query(diesel::migration::CREATE_MIGRATIONS_TABLE);
        let Some((node, _)) = self.clustered() else { return self.execute(&create) };
        let node = Arc::clone(node);
        self.run_held_back(&node)?;
        self.migrations = Migrations::default();
        if self.asks(TABLE, &[])?.is_empty() {
            self.execute(&create)?;
            if self.phase() == Phase::Autocommit {
                self.await_schema(&node)?;
            }
        }
        let list = Some(self.asks(LIST, &[])?);
        self.migrations = Migrations { stage: Stage::Listed, list, versioned: false };
        Ok(0)
    }

    /// The connection is lent to somebody else, who may not be migrating.
    pub(super) fn end_migrating(&mut self) {
        if self.phase() == Phase::Autocommit {
            self.migrations = Migrations::default();
        }
    }

    /// A query of ours, about Diesel's table.
    fn asks(&mut self, sql: &str, params: &[Value]) -> QueryResult<RowSet> {
        let _muted = self.local.mute();
        collect(self.load(BoundQuery::new(sql, params, true))?, usize::MAX)
            .map_err(|refusal| crate::error::called(refusal.into(), None))
    }

    /// A script or a steering statement, on its way through the stages.
    pub(super) fn script_or_migration(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        if self.migrations.stage == Stage::Idle || self.forced.is_some() {
            self.run_held_back(node)?;
            return self.run_script(node, sql);
        }
        let control = match statements(sql).as_slice() {
            [only] => Control::of(only),
            _ => None,
        };
        match (std::mem::take(&mut self.migrations.stage), control) {
            (Stage::Listed, Some(Control::Begin(None))) => {
                self.run_script(node, sql)?;
                self.migrations.versioned = false;
                self.migrations.stage = Stage::Begun;
                Ok(())
            }
            (Stage::Listed, _) => {
                self.migrations.stage = Stage::Listed;
                self.run_script(node, sql)
            }
            (Stage::Begun, None) => self.begin_migration(node, sql),
            // What was held back is not wanted any more.
            (Stage::Held(_), Some(Control::Rollback)) => self.run_script(node, sql),
            (Stage::Held(script), _) => {
                self.run_script(node, &script)?;
                self.script_or_migration(node, sql)
            }
            (Stage::Running, Some(Control::Commit)) if self.migrations.versioned => {
                self.commit_migration(node, sql)
            }
            (
                Stage::Running,
                None | Some(Control::Savepoint(_) | Control::Release(_) | Control::RollbackTo(_)),
            ) => {
                self.migrations.stage = Stage::Running;
                self.run_script(node, sql)
            }
            // The end of a transaction that was no migration, or that failed.
            _ => self.run_script(node, sql),
        }
    }

    /// One runner at a time: the lock is taken, then the list is looked at.
    fn begin_migration(&mut self, node: &Arc<Node>, script: &str) -> QueryResult<()> {
        if self.phase() == Phase::LocalWrites {
            let _muted = self.local.mute();
            self.local.batch_execute(LOCK)?;
        }
        let now = self.on_primary(|conn| conn.asks(LIST, &[]))?;
        if self.migrations.list.as_ref() == Some(&now) {
            self.migrations.stage = Stage::Running;
            return self.run_script(node, script);
        }
        self.migrations.list = None;
        self.migrations.stage = Stage::Held(script.to_owned());
        Ok(())
    }

    fn commit_migration(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        // Others cannot have changed it: the lock is held.
        let list = match self.migrations.list {
            Some(_) => Some(self.asks(LIST, &[])?),
            None => None,
        };
        self.run_script(node, sql)?;
        self.await_schema(node)?;
        self.migrations = Migrations { stage: Stage::Listed, list, versioned: false };
        Ok(())
    }

    /// Before any statement but a script or a change.
    pub(super) fn before_statement(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        match self.migrations.stage {
            Stage::Idle | Stage::Listed | Stage::Running => Ok(()),
            Stage::Begun | Stage::Held(_) => self.run_held_back(node),
        }
    }

    pub(super) fn run_held_back(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        match std::mem::take(&mut self.migrations.stage) {
            Stage::Held(script) => {
                self.migrations.stage = Stage::Running;
                // It was written before whatever is in force now.
                let forced = self.forced.take();
                let result = self.run_script(node, &script);
                self.forced = forced;
                result
            }
            Stage::Begun => {
                self.migrations.stage = Stage::Running;
                Ok(())
            }
            stage => {
                self.migrations.stage = stage;
                Ok(())
            }
        }
    }

    /// Before a statement that changes something. `true`: it is the row of a migration that
    /// somebody else has applied, or taken back, already.
    pub(super) fn is_migrated_already<T>(
        &mut self,
        node: &Arc<Node>,
        query: &T,
    ) -> QueryResult<bool>
    where
        T: QueryFragment<Sqlite>,
    {
        if self.migrations.stage == Stage::Idle {
            return Ok(false);
        }
        let statement = self.scratch.capture(query)?;
        let Some(entered) = enters(&statement) else {
            return self.before_statement(node).map(|()| false);
        };
        self.migrations.versioned = true;
        let Stage::Held(script) = std::mem::take(&mut self.migrations.stage) else {
            let in_transaction = self.phase() != Phase::Autocommit;
            self.migrations.stage = if in_transaction { Stage::Running } else { Stage::Listed };
            return Ok(false);
        };
        self.migrations.stage = Stage::Running;
        let is_there = !self.on_primary(|conn| conn.asks(FIND, &statement.params))?.is_empty();
        if is_there != entered {
            self.run_script(node, &script)?;
        }
        Ok(is_there == entered)
    }

    /// After a change outside of a transaction: the version of a migration that wanted none.
    pub(super) fn after_change(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        if self.migrations.versioned && self.phase() == Phase::Autocommit {
            self.migrations.versioned = false;
            let list = self.on_primary(|conn| conn.asks(LIST, &[]))?;
            self.migrations.list = self.migrations.list.is_some().then_some(list);
            self.await_schema(node)?;
        }
        Ok(())
    }

    /// Whoever has migrated goes on to use the schema, perhaps in another process or without
    /// waiting for anything: it is here when the migration returns.
    fn await_schema(&mut self, node: &Arc<Node>) -> QueryResult<()> {
        let deadline = Instant::now() + node.options.forward_timeout;
        let marks = self.own_marks.clone();
        if is_writable(node) || self.is_visible(node, marks, deadline) {
            return Ok(());
        }
        // The migration stands; what fails is to go on here.
        self.transaction.reset_manager();
        Err(Failure::SchemaSkew.error(format!(
            "the migration is applied, but this node has not received it within {:?}: it runs \
             behind the primary",
            node.options.forward_timeout
        )))
    }
}
