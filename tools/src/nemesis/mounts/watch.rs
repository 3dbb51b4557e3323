//! Watches which mount is the primary, and records failovers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::mount::{Mount, position};
use crate::nemesis::client::ClientContext;
use crate::nemesis::history::{Moment, Takeover};
use crate::nemesis::losses::PossibleLoss;

/// The interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The timeout of a request: LiteFS answers in a millisecond or not at all.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// A task that polls all nodes for as long as this lives.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// One poll of all nodes.
#[derive(Debug, Clone, Default)]
struct Poll {
    /// When the poll began.
    at: Moment,
    /// The position of each node.
    txids: Vec<u64>,
    /// The node that reports to be the primary, if there is exactly one.
    primary: Option<usize>,
    /// Nodes whose LiteFS did not answer.
    silent: Vec<usize>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last poll that found a primary.
    last: Poll,
    /// Whether the very last poll found one.
    now: bool,
    /// The nodes whose LiteFS did not answer then.
    silent: Vec<usize>,
    takeovers: Vec<Takeover>,
    possible_losses: Vec<PossibleLoss>,
    /// Since when a node's LiteFS has not answered, until the restart has been returned once.
    away: BTreeMap<usize, Moment>,
}

impl Seen {
    fn record(&mut self, poll: Poll, now: Moment) {
        for node in &poll.silent {
            self.away.entry(*node).or_insert(poll.at);
        }
        self.silent.clone_from(&poll.silent);
        self.now = poll.primary.is_some();
        let Some(primary) = poll.primary else { return };
        let before = self.last.primary.is_some_and(|before| before != primary);
        if before {
            let began = self.last.at;
            self.takeovers.push(Takeover { began, ended: now });
            // The lower bound on what it has of its predecessor's transactions.
            let kept = self.last.txids[primary];
            self.possible_losses.push(PossibleLoss { began, until: now, kept, node: None });
        }
        self.last = poll;
    }
}

impl Watch {
    pub(super) fn start(
        mounts: Vec<Mount>,
        database: String,
        shared: Arc<ClientContext>,
        runtime: &Handle,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let keeps = Arc::clone(&seen);
        let task = runtime.spawn(async move {
            loop {
                let poll = poll(&mounts, &database, &shared).await;
                locked(&keeps).record(poll, shared.now());
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Self { seen, task }
    }

    /// The primary, if the last poll found one.
    pub(super) fn primary(&self) -> Option<usize> {
        let seen = locked(&self.seen);
        seen.last.primary.filter(|_| seen.now)
    }

    /// A node whose LiteFS had died and is back, and since when it had not answered. Each restart
    /// is returned once.
    pub(super) fn take_back(&self) -> Option<(usize, Moment)> {
        let mut seen = locked(&self.seen);
        let back = seen.away.keys().copied().find(|node| !seen.silent.contains(node))?;
        seen.away.remove(&back).map(|since| (back, since))
    }

    /// Whether all nodes answer.
    pub(super) fn all_answer(&self) -> bool {
        locked(&self.seen).silent.is_empty()
    }

    pub(super) fn takeovers(&self) -> Vec<Takeover> {
        locked(&self.seen).takeovers.clone()
    }

    pub(super) fn possible_losses(&self) -> Vec<PossibleLoss> {
        locked(&self.seen).possible_losses.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no code panics while it holds the lock")
}

async fn poll(mounts: &[Mount], database: &str, shared: &ClientContext) -> Poll {
    let at = shared.now();
    let (dirs, name) =
        (mounts.iter().map(|mount| mount.dir.clone()).collect::<Vec<_>>(), database.to_owned());
    // A file on a mount may block.
    let read = tokio::task::spawn_blocking(move || {
        dirs.iter().map(|dir| txid(position(dir, &name).ok())).collect()
    });
    let txids = read.await.unwrap_or_else(|_| vec![0; mounts.len()]);
    let asked =
        &futures::future::join_all(mounts.iter().map(|mount| is_primary(shared, &mount.url))).await;
    let nodes = |says| (0..asked.len()).filter(move |node| asked[*node] == says);
    let mut primaries = nodes(Some(true));
    let primary = primaries.next().filter(|_| primaries.next().is_none());
    Poll { at, txids, primary, silent: nodes(None).collect() }
}

/// `<txid>/<checksum>`, both in hexadecimal digits.
fn txid(position: Option<String>) -> u64 {
    let text = position.unwrap_or_default();
    text.split_once('/').and_then(|(txid, _)| u64::from_str_radix(txid, 16).ok()).unwrap_or(0)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    is_primary: bool,
}

/// `None` if LiteFS does not answer.
async fn is_primary(shared: &ClientContext, url: &str) -> Option<bool> {
    let asked = async {
        let answer =
            shared.http.get(format!("{url}/info")).timeout(ANSWER_LIMIT).send().await.ok()?;
        answer.json::<Info>().await.ok()
    };
    asked.await.map(|info| info.is_primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(at: Moment, txids: [u64; 2], primary: Option<usize>) -> Poll {
        Poll { at, txids: txids.to_vec(), primary, silent: Vec::new() }
    }

    #[test]
    fn a_takeover_lasts_between_the_polls_of_both_primaries() {
        let mut seen = Seen::default();
        seen.record(poll(10, [5, 4], Some(0)), 11);
        seen.record(poll(20, [7, 6], Some(0)), 21);
        seen.record(poll(30, [8, 6], None), 31);
        seen.record(poll(40, [9, 9], Some(1)), 41);
        assert_eq!(seen.takeovers, [Takeover { began: 20, ended: 41 }]);
        assert_eq!(
            seen.possible_losses,
            [PossibleLoss { began: 20, until: 41, kept: 6, node: None }]
        );
        seen.record(poll(50, [9, 9], None), 51);
        seen.record(poll(60, [9, 9], Some(1)), 61);
        assert_eq!(seen.takeovers.len(), 1, "the same primary again is not a takeover");
    }

    #[tokio::test]
    async fn a_restarted_litefs_is_returned_once() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watch = Watch { seen: Arc::clone(&seen), task: tokio::spawn(async {}) };
        for (at, silent) in [(10, vec![]), (20, vec![1]), (30, vec![1])] {
            locked(&seen).record(Poll { silent, ..poll(at, [1, 1], Some(0)) }, at);
            assert_eq!(watch.take_back(), None);
        }
        assert!(!watch.all_answer());
        locked(&seen).record(poll(40, [1, 1], Some(0)), 40);
        assert_eq!((watch.take_back(), watch.take_back()), (Some((1, 20)), None));
    }

    #[test]
    fn a_position_begins_with_the_transaction() {
        assert_eq!(txid(Some("000000000000001f/9efaa58b19947d5c\n".into())), 31);
        assert_eq!(txid(None), 0);
    }
}
