//! The handle: one database on LiteFS in one process.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use diesel::result::{ConnectionResult, QueryResult};
use litefs_core::{Position, Role, RoleState, Tracker};
use litefs_rpc::server::Server;
use litefs_rpc::sqlite::Procedure;
use litefs_rpc::wire::{Outcome, RequestId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::connection::LiteFsConnection;
use crate::consistency::Mark;
use crate::error::{handoff_failed, stopped};
use crate::failure::Failure;
use crate::node::Node;
use crate::options::{LiteFsBuilder, StartError};

/// One database on LiteFS: tracks the primary, takes writes of other nodes while this node is the
/// primary, and makes connections that write from every node.
///
/// A process has one handle per database; clones are the same handle. Everything stops when the
/// last clone and the last connection are dropped.
#[derive(Clone)]
#[must_use]
pub struct LiteFs {
    node: Arc<Node>,
}

impl LiteFs {
    /// Starts with default options and those of the environment (`LITEFS_*`, see
    /// [`LiteFsBuilder`]). `database` is a path, or a `sqlite://` or `file:` URL
    /// ([`DatabaseUrl`](litefs_core::DatabaseUrl)); LiteFS's mount is the directory it lies in.
    /// Where there is no LiteFS everything runs locally.
    ///
    /// Blocks until this node's role is known, at most about 1 s.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(database: &str) -> Result<Self, StartError> {
        Self::builder(database).from_env().start()
    }

    /// A builder with default options.
    pub fn builder(database: &str) -> LiteFsBuilder {
        LiteFsBuilder::new(database)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What SQLite says when it cannot open the file, or what the connection hook says.
    pub fn establish(&self) -> ConnectionResult<LiteFsConnection> {
        LiteFsConnection::of(Arc::clone(&self.node), self.node.options.config.url())
    }

    /// The role of this node.
    #[must_use]
    pub fn role(&self) -> Role {
        self.node.tracker.role()
    }

    /// The role and its changes.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<RoleState> {
        self.node.tracker.subscribe()
    }

    /// The tracker: position, lag, the state of each detector.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.node.tracker
    }

    /// The address on which this process takes writes of other nodes. `None`: it takes none.
    #[must_use]
    pub fn rpc_address(&self) -> Option<SocketAddr> {
        self.node.server().as_deref().map(Server::address)
    }

    /// How many requests this process has sent to primaries. Local reads and writes do not count.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.node.forwarder.client().round_trips()
    }

    /// Adds a procedure that other nodes may [call](LiteFsConnection::call) while this node is the
    /// primary, in place of one of the same name. To be done on every node, best by
    /// [`LiteFsBuilder::procedure`]: a node that is the primary without it refuses the calls of
    /// others.
    pub fn procedure<A, R>(&self, procedure: &'static Procedure<A, R>)
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.node.options.procedures.register(procedure);
    }

    /// What became of a write whose outcome is unknown
    /// ([`Failure::write_of`](crate::Failure::write_of) returns its id). If the write has not been
    /// applied, its id is fenced: a late retry is rejected. Only writes delivered
    /// [`ExactlyOnce`](litefs_rpc::wire::Delivery::ExactlyOnce) have an outcome, which is kept for
    /// [`outcome_retention`](LiteFsBuilder::outcome_retention). Blocks, at most `forward_timeout`.
    ///
    /// # Errors
    /// Those of a forwarded write: no primary, or none that can be reached.
    pub fn outcome(&self, id: RequestId) -> QueryResult<Outcome> {
        let mut connection = self.establish().map_err(|error| Failure::Unreachable.error(error))?;
        connection.outcome(&self.node, id).map(|(outcome, _)| outcome)
    }

    /// Makes the node named the primary, or the replica that is furthest ahead. Can be called on
    /// every node. Writes wait during the handoff (some milliseconds) and then go to the new
    /// primary: no acknowledged write is lost, and no forwarded one fails. Use it before a primary
    /// is stopped. Returns the new primary's name. Blocks, at most `forward_timeout`.
    ///
    /// Only a replica whose handle serves can become the primary, and LiteFS must permit it
    /// ([`candidate`](https://fly.io/docs/litefs/config/)).
    ///
    /// # Errors
    /// [`Failure::HandoffFailed`] says why; the primary is the same node as before then.
    pub fn handoff(&self, to: Option<&str>) -> QueryResult<String> {
        let deadline = Instant::now() + self.node.options.forward_timeout;
        let (primary, to) = (self.node.primary(), to.map(ToOwned::to_owned));
        let successor = self.node.io.wait(async move { primary.handoff(to, deadline).await });
        successor.ok_or_else(stopped)?.map_err(handoff_failed)
    }

    /// If this node is the primary, makes the replica that is furthest ahead the primary. To be
    /// called before the process or its LiteFS is stopped (a deploy), while it still serves.
    /// Returns the new primary's name. `None`: this node is not the primary. Blocks, at most
    /// `forward_timeout`.
    ///
    /// # Errors
    /// As [`handoff`](Self::handoff), for example if no replica follows.
    pub fn step_down(&self) -> QueryResult<Option<String>> {
        if self.role() == Role::Primary { self.handoff(None).map(Some) } else { Ok(None) }
    }

    /// How many reads of this process have paused so that LiteFS could apply
    /// ([`read_pause`](LiteFsBuilder::read_pause)), and how many of the pauses did not help.
    #[must_use]
    pub fn held_reads(&self) -> (u64, u64) {
        self.node.read_throttle.counts()
    }

    /// The position that contains everything that this process has written. `None` if nothing was
    /// written and nothing is replicated here.
    ///
    /// Send its text to another process or node, for example in a cookie, and pass it to
    /// [`read_after`](Self::read_after) there.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self.role() {
            Role::Primary => self.node.tracker.read_position().ok(),
            _ => self.node.watermark.marks().newest().or_else(|| self.node.tracker.last_position()),
        }
    }

    /// Makes all later reads of this process wait until the local file has reached `position`.
    pub fn read_after(&self, position: Position) {
        self.node.watermark.add(Mark { position, primary: None });
    }
}

impl fmt::Debug for LiteFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.node.options.config.database();
        f.debug_struct("LiteFs")
            .field("database", &database)
            .field("role", &self.role())
            .finish_non_exhaustive()
    }
}

impl LiteFsBuilder {
    /// Starts tracking and, where LiteFS is, serving. Blocks until this node's role is known, at
    /// most about 1 s.
    ///
    /// # Errors
    /// [`StartError`] says which option is wrong, which address is taken, or that the process
    /// already has a handle for this database.
    pub fn start(self) -> Result<LiteFs, StartError> {
        Ok(LiteFs { node: Node::start(self.build()?)? })
    }
}
