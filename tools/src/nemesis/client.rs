//! A client: it appends to lists and reads them on one node, one operation after the other, and
//! records the results.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use litefs_examples::Problem;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::history::{Key, Moment, Op, Outcome, Record, Value};

/// Longer than a node may take for any operation: one that takes longer is lost or hangs.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest pause between two operations.
const PAUSE_MS: u64 = 8;
/// The interval at which a client polls for a node that is down.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The number of lists in use at the same time.
const LISTS: i64 = 6;
/// The number of operations after which a client goes on to other lists, so that lists stay short
/// enough to be read whole.
const OPERATIONS_PER_LISTS: i64 = 60;
/// How often a client with `--weaken` repeats a write that must not be repeated.
const REPEATS: usize = 10;

/// The address of a node's application, while it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) incarnation: u64,
    pub(super) url: String,
}

/// State that all clients share.
pub(super) struct ClientContext {
    pub(super) began: Instant,
    pub(super) http: reqwest::Client,
    pub(super) endpoints: Vec<RwLock<Option<Endpoint>>>,
    pub(super) over: CancellationToken,
    pub(super) retry_unknown: bool,
}

impl ClientContext {
    pub(super) fn new(nodes: usize, retry_unknown: bool) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self {
            began: Instant::now(),
            // A client that resent requests on its own would cause duplicates.
            http: reqwest::Client::builder()
                .timeout(TIMEOUT)
                .retry(reqwest::retry::never())
                .build()?,
            endpoints: (0..nodes).map(|_| RwLock::default()).collect(),
            over: CancellationToken::new(),
            retry_unknown,
        }))
    }

    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(Moment::MAX)
    }

    pub(super) fn endpoint(&self, node: usize) -> Option<Endpoint> {
        self.endpoints[node].read().expect("no code panics while it holds an endpoint").clone()
    }

    pub(super) fn set_endpoint(&self, node: usize, endpoint: Option<Endpoint>) {
        let endpoint_of_node = &self.endpoints[node];
        *endpoint_of_node.write().expect("no code panics while it holds an endpoint") = endpoint;
    }
}

pub(super) struct Client {
    number: usize,
    node: usize,
    rng: StdRng,
    shared: Arc<ClientContext>,
    invented: i64,
    operations: i64,
    /// The list of its last append, which it should see next.
    last: Option<Key>,
    records: Vec<Record>,
}

impl Client {
    pub(super) fn new(number: usize, node: usize, seed: u64, shared: Arc<ClientContext>) -> Self {
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number as u64 + 1));
        Self {
            number,
            node,
            rng,
            shared,
            invented: 0,
            operations: 0,
            last: None,
            records: Vec::new(),
        }
    }

    /// Runs operations until the run is over.
    pub(super) async fn run(mut self) -> Vec<Record> {
        let over = self.shared.over.clone();
        while !over.is_cancelled() {
            let pause = match self.shared.endpoint(self.node) {
                Some(endpoint) => {
                    let op = self.choose();
                    self.operate(&endpoint, op).await;
                    Duration::from_millis(self.rng.random_range(0..PAUSE_MS))
                }
                None => POLL_INTERVAL,
            };
            tokio::time::sleep(pause).await;
        }
        self.records
    }

    fn choose(&mut self) -> Op {
        self.operations += 1;
        match self.rng.random_range(0..100) {
            // A transaction whose replies are lost blocks other writers on the primary, and few
            // writes would be left to repeat.
            30..45 if !self.shared.retry_unknown => {
                let with_retry = self.rng.random_bool(0.6);
                Op::ReadThenAppend { key: self.key(), value: self.value(), with_retry }
            }
            0..45 => Op::Append { key: self.key(), value: self.value() },
            45..55 => {
                let count = self.rng.random_range(2..5);
                Op::Batch { items: (0..count).map(|_| (self.key(), self.value())).collect() }
            }
            55..80 => Op::Read { key: self.last.unwrap_or_else(|| self.key()) },
            _ => Op::Read { key: self.key() },
        }
    }

    fn key(&mut self) -> Key {
        self.operations / OPERATIONS_PER_LISTS * LISTS + self.rng.random_range(0..LISTS)
    }

    fn value(&mut self) -> Value {
        self.invented += 1;
        // For readable output: the client above a million, its count below.
        (self.number as i64 + 1) * 1_000_000 + self.invented
    }

    async fn operate(&mut self, endpoint: &Endpoint, op: Op) {
        let invoked = self.shared.now();
        let mut outcome = self.ask(endpoint, &op).await;
        for _ in 0..REPEATS {
            if !self.shared.retry_unknown || op.appends().is_empty() || !unknown(&outcome) {
                break;
            }
            // A correct client does not repeat this.
            match self.shared.endpoint(self.node) {
                Some(endpoint) => outcome = self.ask(&endpoint, &op).await,
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        self.last = op.appends().first().map(|(key, _)| *key).or(self.last);
        let completed = self.shared.now();
        let (client, node, incarnation) = (self.number, self.node, endpoint.incarnation);
        self.records.push(Record { client, node, incarnation, invoked, completed, op, outcome });
    }

    async fn ask(&self, endpoint: &Endpoint, op: &Op) -> Outcome {
        let sent = self.shared.http.post(format!("{}/op", endpoint.url)).json(op).send().await;
        match sent {
            Err(error) if error.is_connect() => {
                Outcome::Refused { why: "the node's process is down".to_owned() }
            }
            Err(error) => Outcome::Unknown { why: explained(&error) },
            Ok(response) if !response.status().is_success() => {
                Outcome::Unknown { why: format!("PANIC: {}", response.status()) }
            }
            Ok(response) => response
                .json()
                .await
                .unwrap_or_else(|error| Outcome::Unknown { why: explained(&error) }),
        }
    }
}

fn explained(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        format!("HANG: nothing within {TIMEOUT:?}")
    } else {
        "the node's process ended".into()
    }
}

fn unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown { .. })
}
