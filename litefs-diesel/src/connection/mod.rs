//! The connection that applications use.

mod acknowledgement;
mod cursor;
mod destination;
mod diesel_impls;
mod driver;
mod extras;
mod failure;
mod instrumentation;
mod jobs;
mod migrations;
mod plan;
mod proof;
mod recorder;
mod remote;
mod remount;
mod run;
mod session_functions;
mod steering;
mod transaction;
mod transaction_calls;
mod transaction_state;

use std::sync::Arc;

use diesel::connection::{
    AnsiTransactionManager, Connection, SimpleConnection, get_default_instrumentation,
};
use diesel::result::{ConnectionError, ConnectionResult, DatabaseErrorKind, Error, QueryResult};
use diesel::sqlite::SqliteConnection;
use litefs_core::{DatabaseUrl, Position, RoleKind, RoleStamp};
use litefs_rpc::client;
use litefs_rpc::sqlite::sql::{SqlStatement, statements};
use litefs_rpc::sqlite::{Native, Opened};
use litefs_rpc::wire::{Delivery, RowSet, SessionCounters, Settings, Value};

use self::destination::Phase;
use self::instrumentation::{ReportedCache, Silence};
pub(crate) use self::jobs::unexpected;
use self::migrations::Migrations;
use self::proof::CommitState;
pub(crate) use self::recorder::{PrimaryReport, Recorder};
use self::transaction_state::Transaction;
use crate::access::{Access, Class, ClassCache};
use crate::bind::Scratch;
use crate::consistency::{Consistency, Marks};
use crate::loss::ack_log::Acknowledgement;
use crate::node::{Node, read_positions};
use crate::router::Route;

/// A Diesel connection to a SQLite database on LiteFS. Reads run on this node's file, everything
/// that changes the database on the primary; without LiteFS everything is local.
///
/// It takes the place of [`SqliteConnection`]: the same queries, the same errors, the same rows.
/// Statements block until they are done, as with [`SqliteConnection`]; a forwarded one takes at
/// most `forward_timeout` ([`LiteFsBuilder`](crate::LiteFsBuilder)).
///
/// On LiteFS a connection starts with `PRAGMA busy_timeout = 5000`; set another as you like.
///
/// [`Connection::establish`] finds the [`LiteFs`](crate::LiteFs) handle that this process has
/// started for the file, by whatever URL. On a LiteFS mount without a handle it starts one from the
/// environment; it never falls back to plain SQLite there. The URL's parameters hold for the
/// connection, what it leaves open is as for the handle: with `mode=ro` writes fail as SQLite fails
/// them and nothing is forwarded. `immutable`, `nolock`, `cache=shared` and a `vfs` that is not the
/// handle's are refused with [`ConnectionError::InvalidConnectionUrl`].
///
/// ```
/// use diesel::prelude::*;
/// use litefs_diesel::LiteFsConnection;
///
/// // No LiteFS here: plain SQLite.
/// let mut conn = LiteFsConnection::establish(":memory:")?;
/// diesel::sql_query("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)").execute(&mut conn)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LiteFsConnection {
    local: SqliteConnection,
    /// What SQLite knows of `local`.
    native: Native,
    commit_state: Arc<CommitState>,
    /// `None`: not on LiteFS, everything is local.
    home: Option<Arc<Node>>,
    /// The role as this connection last prepared itself for it.
    seen: Option<RoleStamp>,
    query_only: bool,
    /// The URL said `mode=ro`: SQLite refuses writes, wherever this node is.
    read_only: bool,
    /// The user's own `PRAGMA query_only`.
    users_query_only: bool,
    scratch: Scratch,
    classes: ClassCache,
    transaction: Transaction,
    manager: AnsiTransactionManager,
    migrations: Migrations,
    /// The transaction failed only because somebody else wrote or the primary changed: run again,
    /// it may succeed.
    lost_race: bool,
    silence: Silence,
    reported_cache: ReportedCache,
    /// The link used last and the role it was used in.
    link: Option<(RoleStamp, Arc<client::Connection>)>,
    /// The session PRAGMAs that forwarded writes follow; `None` after one was set.
    settings: Option<Settings>,
    /// The last write's effects, if it was forwarded.
    last_forwarded: Option<SessionCounters>,
    /// The rows changed by forwarded writes, for `total_changes()`.
    forwarded_changes: i64,
    consistency: Consistency,
    delivery: Delivery,
    own_marks: Marks,
    acknowledgement: Option<Acknowledgement>,
    /// Where the database was before the last commit on this node's own file.
    committing_from: Option<Position>,
    forced: Option<Route>,
    /// What the file was opened on.
    device: Option<u64>,
    /// LiteFS was mounted again since then.
    left_behind: bool,
}

impl LiteFsConnection {
    /// `url`: the handle's, or one within it.
    pub(crate) fn of(home: Arc<Node>, url: &DatabaseUrl) -> ConnectionResult<Self> {
        let mut connection = Self::around(home.open(&url.to_string())?, Some(home));
        connection.read_only = url.is_read_only();
        connection.gate_default_instrumentation();
        if let Some(node) = connection.home.clone() {
            connection.watch_commits(&node);
            connection.follow_role(&node).map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection)
    }

    /// Has SQLite tell when it begins a commit.
    fn watch_commits(&self, node: &Node) {
        let (state, tracker) = (Arc::clone(&self.commit_state), node.tracker.clone());
        let read = read_positions(node.tracker.clone());
        self.native.read_positions_by(Box::new(move || {
            state.begin(&tracker);
            read()
        }));
    }

    fn for_url(url: &str) -> ConnectionResult<Self> {
        let plain = || Ok(Self::around(Opened::establish(url)?, None));
        // In memory, temporary, or refused by SQLite: never on LiteFS.
        let Ok(parsed) = DatabaseUrl::parse(url) else { return plain() };
        let Some(home) = Node::for_url(&parsed)? else { return plain() };
        let within = parsed.within(home.options.config.url());
        let within =
            within.map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
        Self::of(home, &within)
    }

    fn around(Opened { connection: local, native }: Opened, home: Option<Arc<Node>>) -> Self {
        let options = home.as_ref().map(|home| &home.options);
        let consistency = options.map_or_else(Consistency::default, |options| options.consistency);
        let delivery = options.map_or_else(Delivery::default, |options| options.delivery);
        let device = home.as_deref().and_then(remount::device);
        Self {
            local,
            native,
            commit_state: Arc::default(),
            home,
            seen: None,
            query_only: false,
            read_only: false,
            users_query_only: false,
            scratch: Scratch::default(),
            classes: ClassCache::default(),
            transaction: Transaction::default(),
            manager: AnsiTransactionManager::default(),
            migrations: Migrations::default(),
            lost_race: false,
            silence: Silence::default(),
            reported_cache: ReportedCache::default(),
            link: None,
            settings: None,
            last_forwarded: None,
            forwarded_changes: 0,
            consistency,
            delivery,
            own_marks: Marks::default(),
            acknowledgement: None,
            committing_from: None,
            forced: None,
            device,
            left_behind: false,
        }
    }

    /// The local connection got Diesel's default instrumentation; from here on it goes through our
    /// gate.
    fn gate_default_instrumentation(&mut self) {
        if let Some(default) = get_default_instrumentation() {
            self.local.set_instrumentation(self.silence.gate(default));
        }
    }

    /// What this connection's reads must see, from now on.
    pub fn set_consistency(&mut self, consistency: Consistency) {
        self.consistency = consistency;
    }

    /// What this connection's reads must see.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// Whether this connection's forwarded writes are kept track of, so that a lost answer is made
    /// good.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Runs `work` with forwarded writes delivered as `delivery` says, whatever the handle says.
    /// Transactions follow what holds when they move to the primary.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with_delivery<T, E>(
        &mut self,
        delivery: Delivery,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = std::mem::replace(&mut self.delivery, delivery);
        self.until_the_end(work, |conn| conn.delivery = before)
    }

    /// Runs `work` with every statement on the primary, reads too, whatever the router says.
    ///
    /// Statements about temporary and attached databases run here all the same. VACUUM INTO writes
    /// its file on this node: it first waits, at most `read_timeout`, until this node has all that
    /// the primary has.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn on_primary<T, E>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.forced(Route::Primary, work)
    }

    /// Runs `work` with every statement on this node's file, whatever the router says. On a
    /// replica, writes fail as SQLite fails them on a read-only database.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn on_local<T, E>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.forced(Route::Local, work)
    }

    fn forced<T, E>(
        &mut self,
        route: Route,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.forced.replace(route);
        self.until_the_end(work, |conn| conn.forced = before)
    }

    /// An override must not outlive the call it is for, however that ends.
    fn until_the_end<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
        restore: impl FnOnce(&mut Self),
    ) -> T {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        restore(self);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The handle's shared part, where statements may have to leave this node. One atomic load
    /// where there is LiteFS, none where there is not.
    #[inline]
    fn clustered(&self) -> Option<(&Arc<Node>, RoleStamp)> {
        let node = self.home.as_ref()?;
        let stamp = node.tracker.stamp();
        (stamp.kind() != RoleKind::Standalone).then_some((node, stamp))
    }

    fn is_writable(&self, node: &Node) -> bool {
        matches!(node.tracker.stamp().kind(), RoleKind::Primary | RoleKind::Standalone)
    }

    /// Prepares the local connection for the role as it is now: on a node that is not the primary
    /// it must not write, not even by mistake, because LiteFS would let it seem to succeed until
    /// COMMIT.
    fn follow_role(&mut self, node: &Node) -> QueryResult<()> {
        if self.phase().is_local() && self.native.is_autocommit() {
            // An error of the statement before, or `OR ROLLBACK`: nothing may run outside of its
            // transaction.
            self.transaction.lose("SQLite has rolled it back, because of an error in it");
        }
        if matches!(self.phase(), Phase::Autocommit | Phase::Pending) && self.is_writable(node) {
            node.await_handoff();
        }
        let stamp = node.tracker.stamp();
        if self.seen != Some(stamp) {
            self.check_mount(node)?;
            let writable = matches!(stamp.kind(), RoleKind::Primary | RoleKind::Standalone);
            self.set_query_only(!writable)?;
            // Without a mount nothing is prepared: each statement looks again.
            self.seen = remount::is_served(node).then_some(stamp);
        }
        Ok(())
    }

    /// Sets ours; the user's stays in force.
    fn set_query_only(&mut self, on: bool) -> QueryResult<()> {
        if self.query_only != on {
            self.query_only = on;
            self.apply_query_only()?;
        }
        Ok(())
    }

    fn apply_query_only(&mut self) -> QueryResult<()> {
        let _silent = self.silence.keep();
        let on = self.query_only || self.users_query_only;
        self.local.batch_execute(if on {
            "PRAGMA query_only = ON"
        } else {
            "PRAGMA query_only = OFF"
        })
    }

    /// The user sets or asks for their `PRAGMA query_only`.
    fn query_only_pragma(&mut self, sql: &str) -> QueryResult<RowSet> {
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
    fn check_query_only(&self, class: Class) -> QueryResult<()> {
        if self.users_query_only && class.access == Access::Write {
            return Err(read_only());
        }
        Ok(())
    }

    /// Runs something that writes to a temporary or attached database, which `query_only` would
    /// forbid.
    fn lifting_query_only<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        let on = self.query_only;
        self.set_query_only(false)?;
        let result = write(self);
        self.set_query_only(on)?;
        result
    }
}

/// What SQLite says of a write over a connection that only reads.
fn read_only() -> Error {
    let message = "attempt to write a readonly database".to_string();
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message))
}

impl Drop for LiteFsConnection {
    fn drop(&mut self) {
        self.abandon_session();
    }
}

impl std::fmt::Debug for LiteFsConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiteFsConnection")
            .field("role", &self.home.as_ref().map(|node| node.tracker.role()))
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}
