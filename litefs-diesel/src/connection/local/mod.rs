//! The SQLite connection to this node's own file.

mod instrumentation;
mod mount;
mod reporting;

use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use litefs_core::{RoleKind, RoleStamp};
use litefs_rpc::sqlite::sql::{SqlStatement, statements};
use litefs_rpc::sqlite::{BoundQuery, Native, Opened, Procedure, ProcedureError};
use litefs_rpc::wire::{Call, RowSet, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::instrumentation::{InstrumentationGate, Muted, ReportedCache};
use self::mount::{MountCheck, is_served};
use super::errors::read_only;
use crate::access::{Access, Class};
use crate::node::Node;

/// The SQLite connection to this node's own file, and what was set on it.
pub(super) struct Local {
    connection: SqliteConnection,
    native: Native,
    gate: InstrumentationGate,
    reported: ReportedCache,
    mount: MountCheck,
    /// The role that the connection was last prepared for.
    prepared_for: Option<RoleStamp>,
    /// Set on a node that must not write.
    query_only: bool,
    /// The user's own `PRAGMA query_only`.
    users_query_only: bool,
    /// The URL says `mode=ro`: SQLite refuses writes, whatever the role.
    read_only: bool,
}

impl Local {
    /// `node`: `None` where there is no LiteFS.
    pub(super) fn new(opened: Opened, node: Option<&Node>) -> Self {
        Self {
            connection: opened.connection,
            native: opened.native,
            gate: InstrumentationGate::default(),
            reported: ReportedCache::default(),
            mount: MountCheck::new(node),
            prepared_for: None,
            query_only: false,
            users_query_only: false,
            read_only: false,
        }
    }

    /// The connection itself.
    #[inline]
    pub(super) fn sqlite(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    pub(super) fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        self.connection.batch_execute(sql)
    }

    /// Runs a statement that the application's instrumentation does not see.
    pub(super) fn batch_execute_muted(&mut self, sql: &str) -> QueryResult<()> {
        let _muted = self.mute();
        self.connection.batch_execute(sql)
    }

    /// Runs a procedure in the open transaction.
    pub(super) fn run_procedure<A, R>(
        &mut self,
        procedure: &Procedure<A, R>,
        call: &Call,
    ) -> Result<Vec<u8>, ProcedureError>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        procedure.run(&mut self.connection, &self.native, call)
    }

    /// Rolls back. Fails only where SQLite has rolled back already.
    pub(super) fn roll_back(&mut self) {
        let _ = self.batch_execute_muted("ROLLBACK");
    }

    /// What SQLite's C interface says of the connection.
    pub(super) fn native(&self) -> &Native {
        &self.native
    }

    /// The number that each change of the schema increments
    /// (<https://www.sqlite.org/pragma.html#pragma_schema_version>).
    pub(super) fn schema_version(&mut self) -> QueryResult<i64> {
        let _muted = self.mute();
        pragma(&mut self.connection, "schema_version")
    }

    /// Whether SQLite is outside of a transaction.
    pub(super) fn is_autocommit(&self) -> bool {
        self.native.is_autocommit()
    }

    /// Whether SQLite is in a transaction that has the write lock.
    pub(super) fn is_writing(&self) -> bool {
        self.native.is_writing()
    }

    /// Whether databases are attached: SQLite counts their pages with those of this one.
    pub(super) fn has_attached(&mut self) -> bool {
        const ATTACHED: &str = "SELECT 1 FROM pragma_database_list WHERE seq > 1";
        let _muted = self.mute();
        self.connection
            .load(BoundQuery::new(ATTACHED, &[], true))
            .map_or(true, |mut rows| rows.next().is_some())
    }

    /// The role that the connection was last prepared for. `None`: nothing was prepared, or LiteFS
    /// did not serve the mount.
    #[inline]
    pub(super) fn prepared_for(&self) -> Option<RoleStamp> {
        self.prepared_for
    }

    /// Prepares the connection for the role as it is now. On a node that is not the primary it must
    /// not write, not even by mistake: LiteFS would let the write appear to succeed until COMMIT.
    pub(super) fn prepare(&mut self, node: &Node) -> QueryResult<()> {
        let stamp = node.tracker.stamp();
        if self.prepared_for != Some(stamp) {
            self.mount.check(node)?;
            let writable = matches!(stamp.kind(), RoleKind::Primary | RoleKind::Standalone);
            self.set_query_only(!writable)?;
            // Without a mount the next statement prepares again.
            self.prepared_for = is_served(node).then_some(stamp);
        }
        Ok(())
    }

    /// Fails if LiteFS was mounted again since the file was opened.
    pub(super) fn check_mount(&mut self, node: &Node) -> QueryResult<()> {
        if self.prepared_for == Some(node.tracker.stamp()) {
            return Ok(());
        }
        self.mount.check(node)
    }

    /// Whether a check has found that LiteFS was mounted again since the file was opened.
    pub(super) fn is_left_behind(&self) -> bool {
        self.mount.is_left_behind()
    }

    pub(super) fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether the connection is prepared for a node that must not write.
    pub(super) fn is_query_only(&self) -> bool {
        self.query_only
    }

    /// The user's own setting stays in force.
    fn set_query_only(&mut self, on: bool) -> QueryResult<()> {
        if self.query_only != on {
            self.query_only = on;
            self.apply_query_only()?;
        }
        Ok(())
    }

    fn apply_query_only(&mut self) -> QueryResult<()> {
        self.batch_execute_muted(if self.query_only || self.users_query_only {
            "PRAGMA query_only = ON"
        } else {
            "PRAGMA query_only = OFF"
        })
    }

    /// Permits a write to a temporary or attached database. Returns what
    /// [`restore_query_only`](Self::restore_query_only) needs.
    pub(super) fn lift_query_only(&mut self) -> QueryResult<bool> {
        let before = self.query_only;
        self.set_query_only(false)?;
        Ok(before)
    }

    pub(super) fn restore_query_only(&mut self, before: bool) -> QueryResult<()> {
        self.set_query_only(before)
    }

    /// Permits writes to a replica's snapshot, which are to be taken back. No page of them reaches
    /// the file: a statement that needs more than this many pages of memory fails, and SQLite rolls
    /// back (<https://www.sqlite.org/pragma.html#pragma_cache_spill>).
    pub(super) fn begin_speculation(&mut self, max_pages: u32) -> QueryResult<Speculation> {
        let _muted = self.mute();
        let busy_timeout = pragma(&mut self.connection, "busy_timeout")?;
        // Another process of this node may be writing to its own snapshot.
        self.connection.batch_execute(&format!(
            "PRAGMA query_only = OFF; PRAGMA cache_spill = {max_pages}; \
             PRAGMA busy_timeout = {SPECULATION_BUSY_TIMEOUT}"
        ))?;
        self.query_only = false;
        Ok(Speculation { busy_timeout })
    }

    /// Takes back what was written.
    pub(super) fn end_speculation(&mut self, speculation: Speculation) {
        self.roll_back();
        let Speculation { busy_timeout } = speculation;
        let writable = self
            .prepared_for
            .is_some_and(|stamp| matches!(stamp.kind(), RoleKind::Primary | RoleKind::Standalone));
        let restored = self
            .batch_execute_muted(&format!(
                "PRAGMA cache_spill = 1; PRAGMA busy_timeout = {busy_timeout}"
            ))
            .and_then(|()| self.set_query_only(!writable));
        if restored.is_err() {
            // The next statement prepares the connection again, and reports the error.
            self.prepared_for = None;
        }
    }

    /// The user sets or reads their `PRAGMA query_only`.
    pub(super) fn query_only_pragma(&mut self, sql: &str) -> QueryResult<RowSet> {
        let all = statements(sql);
        let value = all.first().and_then(SqlStatement::pragma).and_then(|pragma| pragma.value);
        let Some(value) = value else {
            let values = vec![Value::Integer(self.users_query_only.into())];
            return Ok(RowSet { columns: vec!["query_only".into()], values });
        };
        self.users_query_only =
            ["1", "on", "yes", "true"].iter().any(|on| value.eq_ignore_ascii_case(on));
        self.apply_query_only()?;
        Ok(RowSet::default())
    }

    /// A forwarded write must not get around the user's `PRAGMA query_only`.
    pub(super) fn check_query_only(&self, class: Class) -> QueryResult<()> {
        if self.users_query_only && class.access == Access::Write {
            return Err(read_only());
        }
        Ok(())
    }

    /// The application's instrumentation sees nothing of this connection until the guard drops.
    pub(super) fn mute(&self) -> Muted {
        self.gate.mute()
    }
}

/// How long a write to a replica's snapshot waits for another process, in milliseconds.
const SPECULATION_BUSY_TIMEOUT: u32 = 20;

/// What a connection was before it wrote to a replica's snapshot.
#[derive(Debug)]
pub(super) struct Speculation {
    busy_timeout: i64,
}

fn pragma(connection: &mut SqliteConnection, name: &str) -> QueryResult<i64> {
    let sql = format!("PRAGMA {name}");
    let rows = connection.load(BoundQuery::new(&sql, &[], true))?;
    let rows = litefs_rpc::sqlite::collect(rows, usize::MAX);
    let rows = rows.map_err(|refusal| crate::error::called(refusal.into(), None))?;
    Ok(match rows.values.as_slice() {
        [Value::Integer(number)] => *number,
        _ => 0,
    })
}

/// Whether this node's own file takes writes.
pub(super) fn is_writable(node: &Node) -> bool {
    matches!(node.tracker.stamp().kind(), RoleKind::Primary | RoleKind::Standalone)
}
