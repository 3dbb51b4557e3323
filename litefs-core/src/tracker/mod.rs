//! The one owner of this node's role and position.

mod addresses;
mod detector_state;
mod positions;
mod promote;
mod single_flight;
mod start;
mod state;
mod status;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use detector_state::{DetectorState, DetectorStatus};
pub use promote::PromoteError;
pub(crate) use single_flight::SingleFlight;
pub use start::StartError;
pub(crate) use state::TrackerState;
pub use status::Status;

use crate::{
    Config, Mount, NodeName, Observation, PendingCommits, Position, PositionError, Presence, Role,
    RoleStamp, RoleState, Txid, UnconfirmedCommit,
};

/// Why waiting ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The tracker was shut down.
    #[error("the tracker was shut down")]
    Stopped,
}

/// Tracks the role of this node and the position of one database. Cheap to clone; the clones are
/// one tracker.
///
/// Its tasks run on the tokio runtime it was started on, and end with [`shutdown`](Self::shutdown)
/// or with the last clone.
#[derive(Debug, Clone)]
pub struct Tracker {
    state: Arc<TrackerState>,
    /// The tasks hold `state` but not this, so that it drops with the last handle and ends them.
    _tasks: Arc<DropGuard>,
}

impl Tracker {
    fn new(state: Arc<TrackerState>) -> Self {
        let guard = state.stop.clone().drop_guard();
        Self { state, _tasks: Arc::new(guard) }
    }

    /// The role now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.state.role.borrow().role.clone()
    }

    /// The commits on this node's own file that are not confirmed yet.
    #[must_use]
    pub fn pending_commits(&self) -> &PendingCommits {
        &self.state.pending_commits
    }

    /// The commit of this process to the database that could not be confirmed last.
    #[must_use]
    pub fn unconfirmed_commit(&self) -> &UnconfirmedCommit {
        &self.state.unconfirmed_commit
    }

    /// The role's kind and epoch now: one atomic load.
    #[must_use]
    #[inline]
    pub fn stamp(&self) -> RoleStamp {
        self.state.stamp()
    }

    /// The role now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<RoleState> {
        self.state.role.subscribe()
    }

    /// Waits until the role is one that `pred` accepts.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Deadline`] or [`WaitError::Stopped`].
    pub async fn wait_for_role(
        &self,
        mut pred: impl FnMut(&Role) -> bool,
        deadline: Instant,
    ) -> Result<RoleState, WaitError> {
        let mut states = self.subscribe();
        let found = async {
            let state = states.wait_for(|state| pred(&state.role)).await;
            state.map(|state| state.clone()).map_err(|_| WaitError::Stopped)
        };
        self.until(deadline, found).await
    }

    /// Runs `wait` until it ends, the deadline passes or the tracker stops; what is ready already
    /// wins over both.
    async fn until<T>(
        &self,
        deadline: Instant,
        wait: impl Future<Output = Result<T, WaitError>>,
    ) -> Result<T, WaitError> {
        tokio::select! {
            biased;
            result = timeout_at(deadline, wait) => result.unwrap_or(Err(WaitError::Deadline)),
            () = self.state.stop.cancelled() => Err(WaitError::Stopped),
        }
    }

    /// The TXID of [`last_position`](Self::last_position), zero if there is none: one atomic load.
    #[must_use]
    #[inline]
    pub fn last_txid(&self) -> Txid {
        self.state.positions.txid()
    }

    /// The position last read from `<db>-pos`, or reported by LiteFS if that could not be read.
    ///
    /// It is the latest truth, not a maximum: after a failover it may go back.
    #[must_use]
    pub fn last_position(&self) -> Option<Position> {
        self.state.positions.known()
    }

    /// [`last_position`](Self::last_position) now and from now on.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Option<Position>> {
        self.state.positions.subscribe()
    }

    /// Reads `<db>-pos` now and publishes it as the last position. Blocks: 15 to 41 us on FUSE.
    ///
    /// # Errors
    ///
    /// [`PositionError`] if the database does not exist yet, is not on LiteFS, or the mount is in
    /// trouble.
    pub fn read_position(&self) -> Result<Position, PositionError> {
        self.state.positions.read(&self.state.mount)
    }

    /// Like [`read_position`](Self::read_position), without waking the
    /// [subscribers](Self::positions): LiteFS's event for the transaction does that. For reading at
    /// every commit. Blocks.
    ///
    /// # Errors
    ///
    /// As [`read_position`](Self::read_position).
    pub fn peek_position(&self) -> Result<Position, PositionError> {
        self.state.positions.peek(&self.state.mount)
    }

    /// Waits until the local database has reached `target`. Meanwhile `<db>-pos` is read at each
    /// `tx` event and each [`position_poll`](crate::ConfigBuilder::position_poll), so that it works
    /// without the event stream as well.
    ///
    /// Compares TXIDs only: whether the history is still the same is the caller's question. Do not
    /// wait while this process has a read transaction open on the database: LiteFS cannot apply
    /// anything until it ends.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Deadline`] or [`WaitError::Stopped`].
    pub async fn wait_for_txid(
        &self,
        target: Txid,
        deadline: Instant,
    ) -> Result<Position, WaitError> {
        let reached =
            |known: &Option<Position>| known.is_some_and(|position| position.txid >= target);
        let mut positions = self.positions();
        if let Some(position) =
            (*positions.borrow_and_update()).filter(|position| position.txid >= target)
        {
            return Ok(position);
        }
        let _waiting = self.state.positions.wait();
        let found = async {
            let known = positions.wait_for(reached).await.map_err(|_| WaitError::Stopped)?;
            known.ok_or(WaitError::Stopped)
        };
        self.until(deadline, found).await
    }

    /// Takes in an observation from outside this crate, such as from the row detector or an RPC
    /// client.
    pub fn observe(&self, observation: Observation) {
        self.state.report(self.state.next_seq(), observation);
    }

    /// Looks at the mount and asks `/info` now, and returns when what they say, or their silence,
    /// has been merged. Calls that overlap share one look and one request. Takes at most twice
    /// [`http_timeout`](crate::ConfigBuilder::http_timeout). Where the `info` detector is off, only
    /// the mount is looked at.
    pub async fn confirm(&self) {
        // A mount whose LiteFS hangs does not answer either.
        let look = tokio::time::timeout(
            2 * self.config().http_timeout(),
            self.state.mount_probe.confirm(),
        );
        tokio::select! {
            biased;
            () = self.state.stop.cancelled() => {}
            _ = async { tokio::join!(self.state.info.confirm(), look) } => {}
        }
    }

    /// Whether LiteFS serves the mount, as far as that is known: within
    /// [`poll_interval`](crate::ConfigBuilder::poll_interval), and at once after
    /// [`confirm`](Self::confirm).
    #[must_use]
    pub fn presence(&self) -> Presence {
        *self.state.presence.borrow()
    }

    /// Remembers where a node takes forwarded writes: `host:port`.
    pub fn learn_address(&self, node: &NodeName, rpc_address: &str) {
        self.state.addresses.learn(node, rpc_address);
    }

    /// Returns once an address was [learned](Self::learn_address) after this call, whether or not
    /// the future was polled by then. Cancel safe.
    pub fn address_learned(&self) -> impl Future<Output = ()> + Send + '_ {
        self.state.addresses.learned()
    }

    /// Where a node takes forwarded writes: the learned address, or else its name with its own or
    /// the configured port.
    #[must_use]
    pub fn rpc_address(&self, node: &NodeName) -> String {
        self.state.addresses.get(node).unwrap_or_else(|| node.address(self.config().rpc_port()))
    }

    /// This node's name: configured, or learned from LiteFS the first time it was the primary here.
    #[must_use]
    pub fn own_name(&self) -> Option<NodeName> {
        self.state.own_name()
    }

    /// The age of the last sign of life from the primary; `None` without LiteFS or if `.lag` cannot
    /// be read. Blocks: 70 to 110 us on FUSE. See [`Mount::read_lag`].
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.mount().read_lag().ok().flatten()
    }

    /// Everything a health endpoint wants to show. Blocks as [`lag`](Self::lag) does.
    #[must_use]
    pub fn status(&self) -> Status {
        status::status(&self.state)
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// The mount it tracks.
    #[must_use]
    pub fn mount(&self) -> &Mount {
        &self.state.mount
    }

    /// Ends the tasks. Waits in progress end with [`WaitError::Stopped`]. A role other than
    /// [`Role::Standalone`] becomes [`Role::Unknown`], as it is not watched any more.
    pub fn shutdown(&self) {
        self.state.shut_down();
    }

    /// Cancelled when the tracker stops: for work whose life is tied to it.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.state.stop.child_token()
    }
}
