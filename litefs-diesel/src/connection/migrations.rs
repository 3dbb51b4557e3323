//! Migrations from any node, each applied once however many nodes start at the same time.
//!
//! Diesel's harness ([`diesel_migrations`](https://docs.rs/diesel_migrations)) lists what was applied, then runs each pending
//! migration in a transaction of its own, which ends by entering the migration's version. Between the list and the
//! transaction another node may have applied it. Only the version tells which migration a transaction is about, and it
//! comes last; so the script that comes first is held back until then:
//!
//! ```text
//! Idle --setup--> Listed --BEGIN--> Begun --script--> Held --version's row--> Decided --COMMIT--> Listed
//!   ^---------------- anything else: what is held back runs first -----------------'
//! ```
//!
//! When the version arrives, the write lock is taken, the primary is asked whether it is entered already, and the script
//! runs only if not. A migration that does more than one script, written in Rust, is not held back: of two nodes that
//! run it at once one fails, with nothing applied.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::query_builder::QueryFragment;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::BoundQuery;
use litefs_rpc::sqlite::sql::{statements, tokens};
use litefs_rpc::wire::{Statement, Value};

use super::LiteFsConnection;
use super::scratch::sql_of;
use crate::Failure;
use crate::access::Control;
use crate::litefs::Shared;

/// Diesel's table of applied versions.
const TABLE: &str = "__diesel_schema_migrations";

/// How far the connection has come in what Diesel's harness does.
#[derive(Debug, Default)]
pub(super) enum Migrating {
    #[default]
    Idle,
    /// The harness has asked what is applied.
    Listed,
    /// A transaction has begun after that, nothing has run in it.
    Begun,
    /// Its script waits for the version.
    Held(String),
    /// The version is known, and with it whether the script had to run.
    Decided,
}

/// The statement that ends a migration.
struct VersionRow {
    version: Value,
    /// Entered after `up.sql`; else removed, after `down.sql`.
    entered: bool,
}

impl VersionRow {
    fn of(statement: &Statement) -> Option<Self> {
        let verb = tokens(&statement.sql).next()?;
        let entered = verb.is("INSERT");
        match statement.params.as_slice() {
            [version] if (entered || verb.is("DELETE")) && statement.sql.contains(TABLE) => {
                Some(Self { version: version.clone(), entered })
            }
            _ => None,
        }
    }
}

impl LiteFsConnection {
    /// The harness begins: makes its table where there is none. With the table in place nothing leaves the node.
    pub(super) fn begin_migrating(&mut self) -> QueryResult<usize> {
        let Some((shared, _)) = self.clustered() else {
            return self.execute(&diesel::sql_query(diesel::migration::CREATE_MIGRATIONS_TABLE));
        };
        let shared = Arc::clone(shared);
        self.run_held_back(&shared)?;
        if !self.has_migrations_table()? {
            self.execute(&diesel::sql_query(diesel::migration::CREATE_MIGRATIONS_TABLE))?;
        }
        self.migrating = Migrating::Listed;
        Ok(0)
    }

    fn has_migrations_table(&mut self) -> QueryResult<bool> {
        let _silent = self.silence.keep();
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
        let name = [Value::Text(TABLE.into())];
        Ok(self.load(BoundQuery::new(sql, &name, true))?.next().transpose()?.is_some())
    }

    /// A script or a steering statement, on its way through the states.
    pub(super) fn script_or_migration(&mut self, shared: &Arc<Shared>, sql: &str) -> QueryResult<()> {
        if matches!(self.migrating, Migrating::Idle) {
            return self.run_script(shared, sql);
        }
        let control = match statements(sql).as_slice() {
            [only] => Control::of(only),
            _ => None,
        };
        match (std::mem::take(&mut self.migrating), control) {
            // A migration that wants no transaction around it.
            (Migrating::Listed, None) => {
                self.migrating = Migrating::Listed;
                self.run_script(shared, sql)
            }
            (Migrating::Listed, Some(Control::Begin(None))) => self.begin_migration(shared, sql),
            (Migrating::Begun, None) => {
                self.migrating = Migrating::Held(sql.to_owned());
                Ok(())
            }
            // What was held back is not wanted any more.
            (Migrating::Held(_), Some(Control::Rollback)) => self.run_script(shared, sql),
            (Migrating::Held(script), _) => {
                self.run_script(shared, &script)?;
                self.run_script(shared, sql)
            }
            (Migrating::Decided, Some(Control::Commit)) => {
                self.run_script(shared, sql)?;
                self.await_schema(shared)?;
                self.migrating = Migrating::Listed;
                Ok(())
            }
            _ => self.run_script(shared, sql),
        }
    }

    /// One runner at a time: where the lock is this node's, it is taken before anything is asked.
    fn begin_migration(&mut self, shared: &Arc<Shared>, sql: &str) -> QueryResult<()> {
        let begin = if self.is_writable(shared) { "BEGIN IMMEDIATE" } else { sql };
        self.run_script(shared, begin)?;
        self.migrating = Migrating::Begun;
        Ok(())
    }

    /// Before any statement but a script.
    pub(super) fn before_statement<T>(&mut self, shared: &Arc<Shared>, query: &T) -> QueryResult<()>
    where
        T: QueryFragment<Sqlite>,
    {
        if matches!(self.migrating, Migrating::Listed) && sql_of(query)?.contains(TABLE) {
            return Ok(());
        }
        self.run_held_back(shared)
    }

    pub(super) fn run_held_back(&mut self, shared: &Arc<Shared>) -> QueryResult<()> {
        match std::mem::take(&mut self.migrating) {
            Migrating::Held(script) => self.run_script(shared, &script),
            _ => Ok(()),
        }
    }

    /// Before a statement that changes something. `true`: it is the row of a migration that somebody else has applied, or
    /// taken back, already.
    pub(super) fn is_migrated_already<T>(&mut self, shared: &Arc<Shared>, query: &T) -> QueryResult<bool>
    where
        T: QueryFragment<Sqlite>,
    {
        let row = match self.migrating {
            Migrating::Held(_) => VersionRow::of(&self.scratch.capture(query)?),
            _ => None,
        };
        let Some(row) = row else {
            return self.before_statement(shared, query).map(|()| false);
        };
        let Migrating::Held(script) = std::mem::take(&mut self.migrating) else { return Ok(false) };
        let is_entered = self.is_entered(row.version)?;
        if is_entered != row.entered {
            self.run_script(shared, &script)?;
        }
        self.migrating = Migrating::Decided;
        Ok(is_entered == row.entered)
    }

    /// Asks the primary, within the transaction: on a replica this takes the write lock there.
    fn is_entered(&mut self, version: Value) -> QueryResult<bool> {
        let _silent = self.silence.keep();
        let sql = format!("SELECT 1 FROM {TABLE} WHERE version = ?");
        let version = [version];
        self.on_primary(|conn| {
            Ok(conn.load(BoundQuery::new(&sql, &version, true))?.next().transpose()?.is_some())
        })
    }

    /// Whoever has migrated goes on to use the schema, perhaps in another process or without waiting for anything: it is
    /// here when the migration returns.
    fn await_schema(&mut self, shared: &Arc<Shared>) -> QueryResult<()> {
        let deadline = Instant::now() + shared.options.forward_timeout;
        let marks = self.own_marks.clone();
        if self.is_visible(shared, marks, deadline) {
            return Ok(());
        }
        // The migration stands; what fails is to go on here.
        self.manager = diesel::connection::AnsiTransactionManager::default();
        Err(Failure::SchemaSkew.error(format!(
            "the migration is applied, but this node has not received it within {:?}: it runs behind the primary",
            shared.options.forward_timeout
        )))
    }
}
