//! Writers and readers on both nodes, and the responses to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cluster::wait;
use crate::judge::{Attempt, Write};
use crate::node::{Node, Outcome};
use crate::problem::Problem;
use crate::wire::{New, Row};

/// The pause after a failure. The writer then tries another write.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// The pause between two reads: readers without a pause would block replication.
const BETWEEN_READS: Duration = Duration::from_millis(10);
/// One of this many writes sets the number in the writer's row, the others add rows.
const SET_EVERY: u32 = 4;
/// The number of failures of each kind that are printed.
const EXAMPLES: usize = 3;
/// Writers stop after this time, whatever the scenario does.
const END: Duration = Duration::from_secs(180);

/// The responses to the writers and readers of a load.
#[derive(Debug, Default)]
pub(crate) struct LoadReport {
    pub(crate) attempts: Vec<Attempt>,
    /// Reads that failed: the node and the error.
    pub(crate) failed_reads: Vec<(String, String)>,
    /// Reads that did not show a write that the same node had just acknowledged.
    pub(crate) unseen: Vec<String>,
    pub(crate) reads: u64,
}

impl LoadReport {
    pub(crate) fn reads_summary(&self) -> String {
        let (failed, unseen) = (self.failed_reads.len(), self.unseen.len());
        format!(
            "{} reads: {failed} failed, {unseen} missed an acknowledged write of the node",
            self.reads
        )
    }

    /// The first few failures, one per line.
    pub(crate) fn failures_summary(&self) -> String {
        let writes = self.attempts.iter().filter_map(|attempt| match &attempt.outcome {
            Outcome::Acknowledged { .. } => None,
            Outcome::Refused(why) | Outcome::Unknown(why) => Some(why),
        });
        let few = |lines: &mut dyn Iterator<Item = &String>| {
            lines.take(EXAMPLES).map(|line| format!("\n  {line}")).collect::<String>()
        };
        few(&mut self.unseen.iter())
            + &few(&mut writes.into_iter())
            + &few(&mut self.failed_reads.iter().map(|(_, why)| why))
    }
}

/// A running load.
pub(crate) struct Load {
    shared: Arc<LoadState>,
    tasks: JoinSet<LoadReport>,
}

struct LoadState {
    stop: AtomicBool,
    until: Instant,
    /// The number of acknowledged writes, by node.
    acknowledged: [AtomicU64; 2],
}

impl LoadState {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && Instant::now() < self.until
    }
}

impl Load {
    /// Starts `writers` writers and one reader per node. Keys of this load start with `name`.
    pub(crate) fn start(nodes: &[Node; 2], name: &str, writers: u16) -> Self {
        let shared = Arc::new(LoadState {
            stop: AtomicBool::new(false),
            until: Instant::now() + END,
            acknowledged: Default::default(),
        });
        let mut tasks = JoinSet::new();
        for (index, node) in nodes.iter().enumerate() {
            for number in 0..writers {
                let name = format!("{name}-{}-{number}", node.name());
                let writer = Writer {
                    node: node.clone(),
                    index,
                    name,
                    shared: Arc::clone(&shared),
                    done: 0,
                    own: None,
                };
                tasks.spawn(writer.run());
            }
            tasks.spawn(read(node.clone(), Arc::clone(&shared)));
        }
        Self { shared, tasks }
    }

    /// Waits until a node has acknowledged `more` further writes.
    pub(crate) async fn wait_for(
        &self,
        node: usize,
        more: u64,
        limit: Duration,
    ) -> Result<(), Problem> {
        let so_far = || self.shared.acknowledged[node].load(Ordering::Relaxed);
        let wanted = so_far() + more;
        let what = format!("node {} to acknowledge {more} more writes", node + 1);
        wait(limit, &what, async || Ok((so_far() >= wanted).then_some(()))).await
    }

    /// Stops the load and returns what it recorded.
    pub(crate) async fn stop(mut self) -> Result<LoadReport, Problem> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = LoadReport::default();
        while let Some(one) = self.tasks.join_next().await {
            let one = one?;
            all.attempts.extend(one.attempts);
            all.failed_reads.extend(one.failed_reads);
            all.unseen.extend(one.unseen);
            all.reads += one.reads;
        }
        Ok(all)
    }
}

struct Writer {
    node: Node,
    index: usize,
    name: String,
    shared: Arc<LoadState>,
    done: u32,
    /// The row whose number this writer sets: its key and its id.
    own: Option<(String, String)>,
}

impl Writer {
    async fn run(mut self) -> LoadReport {
        let mut seen = LoadReport::default();
        while self.shared.goes_on() {
            self.done += 1;
            let attempt = self.write().await;
            let outcome = attempt.outcome.clone();
            seen.attempts.push(attempt);
            match outcome {
                Outcome::Acknowledged { row, .. } => {
                    self.shared.acknowledged[self.index].fetch_add(1, Ordering::Relaxed);
                    self.check_visible(row, &mut seen).await;
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
        seen
    }

    async fn write(&mut self) -> Attempt {
        let started = Instant::now();
        if let Some((key, id)) = self.own.clone().filter(|_| self.done.is_multiple_of(SET_EVERY)) {
            let outcome = self.node.set(&id, self.done).await;
            // A row that was lost with a dead primary cannot be set again.
            if matches!(&outcome, Outcome::Refused(why) if why.starts_with("404")) {
                self.own = None;
            }
            return Attempt { started, outcome, write: Write::Set { key, number: self.done } };
        }
        let key = format!("{}-{:05}", self.name, self.done);
        let outcome = self.node.post(&New::row(&key, 0)).await;
        if let (None, Outcome::Acknowledged { row: Some(row), .. }) = (&self.own, &outcome) {
            self.own = Some((key.clone(), row.id.clone()));
        }
        Attempt { started, outcome, write: Write::Post { key } }
    }

    /// Checks that a node returns a row that it has acknowledged.
    async fn check_visible(&self, row: Option<Row>, seen: &mut LoadReport) {
        let name = self.node.name();
        let Some(row) = row else {
            return seen.unseen.push(format!("{name} acknowledged without a row"));
        };
        seen.reads += 1;
        match self.node.find(&row.id).await {
            Ok(Some(_)) => {}
            Ok(None) => seen.unseen.push(format!(
                "{name} acknowledged {:?} and does not return it",
                row.new.client_key
            )),
            Err(error) => seen.failed_reads.push((name.to_owned(), error.to_string())),
        }
    }
}

async fn read(node: Node, shared: Arc<LoadState>) -> LoadReport {
    let mut seen = LoadReport::default();
    while shared.goes_on() {
        seen.reads += 1;
        if let Err(error) = node.read_some().await {
            seen.failed_reads.push((node.name().to_owned(), error.to_string()));
        }
        tokio::time::sleep(BETWEEN_READS).await;
    }
    seen
}
