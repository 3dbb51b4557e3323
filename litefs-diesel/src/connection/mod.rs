//! The connection that applications use.

mod acknowledgement;
mod cursor;
mod decide;
mod diesel_impls;
mod driver;
mod extras;
mod failure;
mod jobs;
mod local;
mod migrations;
mod plan;
mod proof;
mod recorder;
mod remote;
mod run;
mod session_functions;
mod transaction;

use std::sync::Arc;

use diesel::result::{ConnectionError, ConnectionResult, QueryResult};
use litefs_core::{DatabaseUrl, Position, RoleKind, RoleStamp};
use litefs_rpc::client;
use litefs_rpc::sqlite::Opened;
use litefs_rpc::wire::{Delivery, SessionCounters, Settings};

use self::decide::phase::Phase;
pub(crate) use self::jobs::unexpected;
use self::local::{Local, is_writable};
use self::migrations::Migrations;
use self::proof::CommitState;
pub(crate) use self::recorder::{Recorder, WithClause};
use self::transaction::Transaction;
use crate::access::ClassCache;
use crate::bind::BindEngine;
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
/// [`SqliteConnection`]: diesel::SqliteConnection
/// [`Connection::establish`]: diesel::Connection::establish
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
    local: Local,
    commit_state: Arc<CommitState>,
    /// `None`: not on LiteFS, everything is local.
    home: Option<Arc<Node>>,
    scratch: BindEngine,
    classes: ClassCache,
    transaction: Transaction,
    migrations: Migrations,
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
}

impl LiteFsConnection {
    /// `url`: the handle's, or one within it.
    pub(crate) fn of(home: Arc<Node>, url: &DatabaseUrl) -> ConnectionResult<Self> {
        let mut connection = Self::around(home.open(&url.to_string())?, Some(home));
        connection.local.set_read_only(url.is_read_only());
        connection.local.gate_default_instrumentation();
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
        self.local.native().read_positions_by(Box::new(move || {
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

    fn around(opened: Opened, home: Option<Arc<Node>>) -> Self {
        let options = home.as_ref().map(|home| &home.options);
        let consistency = options.map_or_else(Consistency::default, |options| options.consistency);
        let delivery = options.map_or_else(Delivery::default, |options| options.delivery);
        let local = Local::new(opened, home.as_deref());
        Self {
            local,
            commit_state: Arc::default(),
            home,
            scratch: BindEngine::default(),
            classes: ClassCache::default(),
            transaction: Transaction::default(),
            migrations: Migrations::default(),
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

    /// Prepares the local connection for the role as it is now: on a node that is not the primary
    /// it must not write, not even by mistake, because LiteFS would let it seem to succeed until
    /// COMMIT.
    fn follow_role(&mut self, node: &Node) -> QueryResult<()> {
        if self.phase().is_local() && self.local.is_autocommit() {
            // An error of the statement before, or `OR ROLLBACK`: nothing may run outside of its
            // transaction.
            self.transaction.lose("SQLite has rolled it back, because of an error in it");
        }
        if matches!(self.phase(), Phase::Autocommit | Phase::Pending) && is_writable(node) {
            node.await_handoff();
        }
        self.local.prepare(node)
    }

    /// Runs something that writes to a temporary or attached database, which `query_only` would
    /// forbid.
    fn lifting_query_only<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        let before = self.local.lift_query_only()?;
        let result = write(self);
        self.local.restore_query_only(before)?;
        result
    }
}

impl Drop for LiteFsConnection {
    fn drop(&mut self) {
        self.take_back();
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
