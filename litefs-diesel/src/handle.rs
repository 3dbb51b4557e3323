//! The handle: one database on LiteFS in one process.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use diesel::result::{ConnectionResult, QueryResult};
use litefs_core::{Position, Role, RoleState, Tracker};
use litefs_rpc::server::Server;
use litefs_rpc::wire::{Outcome, RequestId};
use tokio::sync::watch;

use crate::connection::LiteFsConnection;
use crate::consistency::Mark;
use crate::error::{handoff_failed, stopped};
use crate::failure::Failure;
use crate::node::Node;
use crate::options::{LiteFsBuilder, StartError};

/// One database on LiteFS: tracks the primary, serves the other nodes' writes while this node is
/// it, and makes connections that write from anywhere.
///
/// One handle per database and process; clones are the same handle. When the last clone and the
/// last connection are gone, everything stops.
#[derive(Clone)]
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

    /// Starts setting up a handle.
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

    /// What this node is now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.node.tracker.role()
    }

    /// Wakes at each change of the role.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<RoleState> {
        self.node.tracker.subscribe()
    }

    /// The tracker, for everything it knows: position, lag, the state of each detector.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.node.tracker
    }

    /// Where this node takes writes of others; `None` where it does not.
    #[must_use]
    pub fn rpc_address(&self) -> Option<SocketAddr> {
        self.node.server().as_deref().map(Server::address)
    }

    /// How many requests this process has sent to primaries. Local reads and writes leave it as it
    /// is.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.node.forwarder.client().round_trips()
    }

    /// What became of a write whose outcome is unknown
    /// ([`Failure::write_of`](crate::Failure::write_of) names it). A write that is not applied is
    /// given up in the same breath: should it still arrive, it is refused. Only writes delivered
    /// [`ExactlyOnce`](litefs_rpc::wire::Delivery::ExactlyOnce) are known, for as long as
    /// [`outcome_retention`](LiteFsBuilder::outcome_retention). Blocks, at most `forward_timeout`.
    ///
    /// # Errors
    /// Those of a forwarded write: no primary, or none that can be reached.
    pub fn outcome(&self, id: RequestId) -> QueryResult<Outcome> {
        let mut connection = self.establish().map_err(|error| Failure::Unreachable.error(error))?;
        connection.outcome(&self.node, id).map(|(outcome, _)| outcome)
    }

    /// Gives the primary's place to the node named, or to the replica that has come furthest; from
    /// whatever node this is called. Nobody can write while it lasts (some milliseconds); what is
    /// sent meanwhile goes on to the new primary, so no acknowledged write is lost and no forwarded
    /// one fails. Use it before a primary is stopped. Returns the new primary's name. Blocks, at
    /// most `forward_timeout`.
    ///
    /// Only replicas whose handle serves can take over, and LiteFS must let them
    /// ([`candidate`](https://fly.io/docs/litefs/config/)).
    ///
    /// # Errors
    /// [`Failure::HandoffFailed`] says why; the primary is then where it was.
    pub fn handoff(&self, to: Option<&str>) -> QueryResult<String> {
        let deadline = Instant::now() + self.node.options.forward_timeout;
        let (primary, to) = (self.node.primary(), to.map(ToOwned::to_owned));
        let successor = self.node.io.wait(async move { primary.handoff(to, deadline).await });
        successor.ok_or_else(stopped)?.map_err(handoff_failed)
    }

    /// Gives the primary's place to the replica that has come furthest, if this node has it: to be
    /// called before the process or its LiteFS is stopped (a deploy), while it still serves.
    /// Returns the new primary's name; `None` where there was nothing to give away. Blocks, at most
    /// `forward_timeout`.
    ///
    /// # Errors
    /// As [`handoff`](Self::handoff), for example where no replica follows.
    pub fn step_down(&self) -> QueryResult<Option<String>> {
        if self.role() == Role::Primary { self.handoff(None).map(Some) } else { Ok(None) }
    }

    /// How many reads this process has held back so that LiteFS could apply
    /// ([`read_pause`](LiteFsBuilder::read_pause)), and how many of them in vain.
    #[must_use]
    pub fn held_reads(&self) -> (u64, u64) {
        self.node.read_throttle.counts()
    }

    /// What a reader must have seen to see everything that this process has written: a token for
    /// another process, request or node. `None` if nothing was written and nothing is replicated
    /// here.
    ///
    /// Hand its text on and give it to [`require`](Self::require) there.
    #[must_use]
    pub fn token(&self) -> Option<Position> {
        match self.role() {
            Role::Primary => self.node.tracker.read_position().ok(),
            _ => self.node.watermark.marks().newest().or_else(|| self.node.tracker.last_position()),
        }
    }

    /// Makes this process's reads wait until the local file has what `token` stands for.
    pub fn require(&self, token: Position) {
        self.node.watermark.add(Mark { position: token, primary: None });
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
