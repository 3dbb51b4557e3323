//! The connection that applications use.

mod classes;
mod commits;
mod cursor;
mod decide;
mod diesel_impls;
mod dispatch;
mod driver;
mod errors;
mod extras;
mod failure;
mod jobs;
mod local;
mod migrations;
mod plan;
mod recorder;
mod remote;
mod replication;
mod route_override;
mod session_state;
mod transaction;
mod visibility;

use std::sync::Arc;

use diesel::result::{ConnectionError, ConnectionResult};
use litefs_core::DatabaseUrl;
use litefs_rpc::sqlite::Opened;
use litefs_rpc::wire::Delivery;

use self::classes::Classes;
use self::commits::Commits;
pub(crate) use self::errors::unexpected;
use self::local::Local;
use self::migrations::Migrations;
pub(crate) use self::recorder::{Recorder, WithClause};
use self::remote::Remote;
use self::route_override::RouteOverride;
use self::session_state::SessionState;
use self::transaction::Transaction;
use self::visibility::ReadVisibility;
use crate::bind::BindEngine;
use crate::consistency::Consistency;
use crate::loss::ack_log::Acknowledgement;
use crate::node::Node;
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
    remote: Remote,
    session: SessionState,
    transaction: Transaction,
    visibility: ReadVisibility,
    commits: Commits,
    migrations: Migrations,
    classes: Classes,
    bind: BindEngine,
    route_override: RouteOverride,
}

impl LiteFsConnection {
    /// Opens a connection of a handle. `url`: the handle's, or one within it.
    pub(crate) fn of(node: Arc<Node>, url: &DatabaseUrl) -> ConnectionResult<Self> {
        let opened = node.open(&url.to_string())?;
        let mut connection = Self::new(opened, Some(Arc::clone(&node)));
        connection.local.set_read_only(url.is_read_only());
        connection.local.gate_default_instrumentation();
        connection.commits.watch(&node, &connection.local);
        connection.follow_role(&node).map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    }

    fn for_url(url: &str) -> ConnectionResult<Self> {
        let plain = || Ok(Self::new(Opened::establish(url)?, None));
        // In memory, temporary, or refused by SQLite: never on LiteFS.
        let Ok(parsed) = DatabaseUrl::parse(url) else { return plain() };
        let Some(node) = Node::for_url(&parsed)? else { return plain() };
        let within = parsed.within(node.options.config.url());
        let within =
            within.map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
        Self::of(node, &within)
    }

    fn new(opened: Opened, node: Option<Arc<Node>>) -> Self {
        let consistency =
            node.as_ref().map_or_else(Consistency::default, |node| node.options.consistency);
        Self {
            local: Local::new(opened, node.as_deref()),
            remote: Remote::new(node),
            session: SessionState::default(),
            transaction: Transaction::default(),
            visibility: ReadVisibility::new(consistency),
            commits: Commits::default(),
            migrations: Migrations::default(),
            classes: Classes::default(),
            bind: BindEngine::default(),
            route_override: RouteOverride::default(),
        }
    }

    /// Sets what this connection's reads must see.
    pub fn set_consistency(&mut self, consistency: Consistency) {
        self.visibility.set_consistency(consistency);
    }

    /// What this connection's reads must see.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.visibility.consistency()
    }

    /// How this connection's forwarded writes are delivered: whether the primary stores their
    /// outcomes, so that a write whose answer is lost can be sent again.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.remote.delivery()
    }

    /// Runs `work` with this delivery of forwarded writes, instead of the handle's. A transaction
    /// has the delivery that is set when it moves to the primary.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with_delivery<T, E>(
        &mut self,
        delivery: Delivery,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.remote.replace_delivery(delivery);
        self.restoring(work, |conn| {
            conn.remote.replace_delivery(before);
        })
    }

    /// Runs `work` with every statement on the primary, reads too. The router is not asked.
    ///
    /// Statements about temporary and attached databases still run on this node. VACUUM INTO writes
    /// its file on this node: it first waits, at most `read_timeout`, until this node has all that
    /// the primary has.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn on_primary<T, E>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.with_route(Route::Primary, work)
    }

    /// Runs `work` with every statement on this node's file. The router is not asked. On a replica
    /// writes fail as they do on a read-only database.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn on_local<T, E>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.with_route(Route::Local, work)
    }

    fn with_route<T, E>(
        &mut self,
        route: Route,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.route_override.replace(Some(route));
        self.restoring(work, |conn| {
            conn.route_override.replace(before);
        })
    }

    /// Runs `work`, then `restore`, also if `work` panics: an override ends with its call.
    fn restoring<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
        restore: impl FnOnce(&mut Self),
    ) -> T {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        restore(self);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What this connection's last write was acknowledged with; `None` before the first one, and
    /// where there is no LiteFS.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.commits.acknowledgement()
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
            .field("role", &self.remote.node().map(|node| node.tracker.role()))
            .field("consistency", &self.consistency())
            .finish_non_exhaustive()
    }
}
