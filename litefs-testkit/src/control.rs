//! Controlling one node, in this process or in another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::command::{Answer, Command};
use crate::error::Error;
use crate::faults::{DiskFault, EventFormat, EventStreamFault, InfoFault};
use crate::host::Host;
use crate::position::Position;
use crate::remote::{post, wait_for};
use crate::status::NodeStatus;

/// A handle on one node that sets its role and injects faults.
///
/// Every [`Node`](crate::Node) dereferences to one; [`Control::attach`] makes one for a node of
/// another process. Settings take effect at once and stay until they are changed back, also through
/// a kill and a restart within the process. Calls block until the node has executed them: faults at
/// once, roles in milliseconds.
///
/// # Errors
/// All methods fail with [`Error::Remote`] if a node of another process does not answer. Roles fail
/// with [`Error::Dead`] on a node that was killed.
#[derive(Debug, Clone)]
pub struct Control {
    target: Target,
    name: String,
}

#[derive(Debug, Clone)]
enum Target {
    Local(Arc<Host>),
    Remote(String),
}

/// The name by which a node of another process is addressed.
pub type RemoteNode = Control;

impl Control {
    pub(crate) fn local(host: Arc<Host>) -> Self {
        Self { name: host.name().to_owned(), target: Target::Local(host) }
    }

    /// A handle on the node whose HTTP server is at `http_url` (see [`Control::http_url`]).
    ///
    /// # Errors
    /// If no such node answers.
    pub fn attach(http_url: impl Into<String>) -> Result<Self, Error> {
        let url = http_url.into();
        let mut control = Self {
            target: Target::Remote(url.trim_end_matches('/').to_owned()),
            name: String::new(),
        };
        control.name = control.status()?.peer.name;
        Ok(control)
    }

    /// The node's name: LiteFS's hostname, as in `.primary`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Base URL of the node's HTTP server, `http://127.0.0.1:<port>`. It does not change at a
    /// restart.
    #[must_use]
    pub fn http_url(&self) -> String {
        match &self.target {
            Target::Local(host) => host.http_url(),
            Target::Remote(url) => url.clone(),
        }
    }

    pub(crate) fn send(&self, command: Command) -> Result<Answer, Error> {
        match &self.target {
            Target::Local(host) => host.execute(command),
            Target::Remote(url) => post(url, &command),
        }
    }

    fn set(&self, command: Command) -> Result<(), Error> {
        self.send(command).map(drop)
    }

    /// The node's present state.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn status(&self) -> Result<NodeStatus, Error> {
        Ok(self.send(Command::Status)?.status)
    }

    /// The position of `database`; zero if the node has no such database or does not answer.
    #[must_use]
    pub fn position(&self, database: &str) -> Position {
        self.status()
            .ok()
            .and_then(|status| status.positions.get(database).copied())
            .unwrap_or_default()
    }

    /// Whether the node holds the lease; false if it does not answer.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.status().is_ok_and(|status| status.is_primary)
    }

    /// Whether the node runs: it was not killed, and it has not ended because of a commit that it
    /// could not capture.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status().is_ok_and(|status| status.alive)
    }

    /// Blocks until `condition` holds for the node's status, for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `timeout`.
    pub fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&NodeStatus) -> bool,
    ) -> Result<(), Error> {
        let what = format!("a condition on node {:?}", self.name);
        wait_for(timeout, &what, || self.status().is_ok_and(|status| condition(&status)))
    }

    /// Makes the node primary without regard to other nodes: two nodes can be made primary.
    /// Databases that its builder names are created (empty, in WAL mode, as transaction 1) if they
    /// do not exist. Replication that has not been applied yet is discarded.
    ///
    /// # Errors
    /// See [`Control`]; also if a database cannot be created.
    pub fn become_primary(&self) -> Result<(), Error> {
        self.set(Command::BecomePrimary { back_to: BTreeMap::new() })
    }

    /// Makes the node a replica of `primary`. `primary` may be dead (the node then reconnects once
    /// a second, as LiteFS does) or the node itself (it announces its own name and cannot connect).
    ///
    /// # Errors
    /// See [`Control`]; also if `primary` is a node of another process that does not answer.
    pub fn follow(&self, primary: &Self) -> Result<(), Error> {
        self.set(Command::Follow { primary: Some(primary.status()?.peer) })
    }

    /// Makes the node lose the primary, and its own lease if it holds it. Commits in flight are
    /// dropped and end the node, as LiteFS's own demotion does.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn lose_primary(&self) -> Result<(), Error> {
        self.set(Command::Follow { primary: None })
    }

    /// Ends the node's lease in an orderly way: commits in flight are captured, later ones are
    /// refused, and connected replicas still receive everything. The node then has no role.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn drain(&self) -> Result<(), Error> {
        self.set(Command::Drain)
    }

    /// Delays all replication to this node by this much. Default zero.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_replication_delay(&self, delay: Duration) -> Result<(), Error> {
        self.set(Command::ReplicationDelay(delay))
    }

    /// Holds back all replication to this node, heartbeats included, while connections stay open.
    /// If the primary dies or another node takes over, what is held back is lost.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn stall_replication(&self) -> Result<(), Error> {
        self.set(Command::Stall)
    }

    /// Ends [`Control::stall_replication`].
    ///
    /// # Errors
    /// See [`Control`].
    pub fn resume_replication(&self) -> Result<(), Error> {
        self.set(Command::Resume)
    }

    /// Makes the link to the node called `peer` carry no data, without closing it. This is one end
    /// of the link; [`Cluster::cut`](crate::Cluster::cut) cuts both.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn cut_link(&self, peer: &str) -> Result<(), Error> {
        self.set(Command::Cut(peer.to_owned()))
    }

    /// Ends [`Control::cut_link`].
    ///
    /// # Errors
    /// See [`Control`].
    pub fn heal_link(&self, peer: &str) -> Result<(), Error> {
        self.set(Command::Heal(peer.to_owned()))
    }

    /// Makes every commit take this much longer, as a slow disk does: COMMIT blocks, reads do not.
    /// Default zero.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_commit_delay(&self, delay: Duration) -> Result<(), Error> {
        self.set(Command::CommitDelay(delay))
    }

    /// Makes SQLite's own syncs (`PRAGMA synchronous`) reach the disk. Default false: the files of
    /// a test need not survive a crash of the machine.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_sync(&self, sync: bool) -> Result<(), Error> {
        self.set(Command::Sync(sync))
    }

    /// The next COMMIT on this primary returns success although LiteFS does not capture it; then
    /// the node is dead. LiteFS does so if it loses the lease while a commit is in flight.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn drop_next_commit(&self) -> Result<(), Error> {
        self.set(Command::DropNextCommit(true))
    }

    /// Makes reads and writes fail at their start with SQLITE_PROTOCOL, or ends that. SQLite
    /// reports the same after it has retried for ten seconds while LiteFS holds its locks; here
    /// they fail at once. Open transactions are not affected.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn refuse_locks(&self, refuse: bool) -> Result<(), Error> {
        self.set(Command::RefuseLocks(refuse))
    }

    /// The next COMMIT on this primary returns success although LiteFS does not capture it, and the
    /// node goes on as if it had. This prolongs the moment between the loss of the lease and its
    /// consequences.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn forget_next_commit(&self) -> Result<(), Error> {
        self.forget_commit_after(0)
    }

    /// The same for a later COMMIT, after `taken` that LiteFS captures.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn forget_commit_after(&self, taken: u32) -> Result<(), Error> {
        self.set(Command::ForgetCommitAfter(taken))
    }

    /// Stops the LiteFS process without closing anything (SIGSTOP): links fall silent, `/info` and
    /// `/events` hang, replicas keep their `.primary`, and only `.lag` grows. Unlike on FUSE, the
    /// node's own files can still be read.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn freeze(&self) -> Result<(), Error> {
        self.set(Command::Freeze(true))
    }

    /// Ends [`Control::freeze`].
    ///
    /// # Errors
    /// See [`Control`].
    pub fn thaw(&self) -> Result<(), Error> {
        self.set(Command::Freeze(false))
    }

    /// How `GET /events` fails from now on.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_event_stream_fault(&self, fault: EventStreamFault) -> Result<(), Error> {
        self.set(Command::Events(fault))
    }

    /// Breaks open event streams in the middle of their body; new ones are not affected.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn drop_event_streams(&self) -> Result<(), Error> {
        self.set_event_stream_fault(EventStreamFault::Refuse)?;
        self.set_event_stream_fault(EventStreamFault::None)
    }

    /// Sets the format of new event streams. Default: JSON lines, as LiteFS.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_event_format(&self, format: EventFormat) -> Result<(), Error> {
        self.set(Command::EventFormat(format))
    }

    /// How `GET /info` fails from now on.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_info_fault(&self, fault: InfoFault) -> Result<(), Error> {
        self.set(Command::Info(fault))
    }

    /// How writes through the VFS fail from now on. Reads are not affected.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_disk_fault(&self, fault: DiskFault) -> Result<(), Error> {
        self.set(Command::Disk(fault))
    }

    /// The mount dies while the LiteFS process lives and keeps answering as before: the directory
    /// is gone and all I/O through the VFS fails, also for open connections. Kill and restart the
    /// node to restore it.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn lose_mount(&self) -> Result<(), Error> {
        self.set(Command::LoseMount)
    }

    /// Lets connections that are open when the mount dies read pages that they have read before, as
    /// SQLite does from its caches on FUSE. Default false: their reads fail.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn set_cached_reads(&self, cached: bool) -> Result<(), Error> {
        self.set(Command::CachedReads(cached))
    }

    /// The extended SQLite code with which the node last refused an operation since the last call,
    /// 0 for none: usually 778 `SQLITE_IOERR_WRITE` or 1544 `SQLITE_READONLY_DIRECTORY`. Diesel
    /// exposes only the message.
    ///
    /// # Errors
    /// See [`Control`].
    pub fn take_refusal(&self) -> Result<i32, Error> {
        Ok(self.send(Command::TakeRefusal)?.refusal)
    }
}
