//! Both nodes, and waits for conditions on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::{Control, Verb};
use crate::node::Node;
use crate::problem::Problem;
use crate::wire::{Row, Status};

/// The interval of polling a condition.
const PAUSE: Duration = Duration::from_millis(50);
/// How long two running nodes may take to agree on the primary. A lease may have to expire first:
/// with Consul that takes twice its TTL of 10 s, plus the lock delay.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);
/// How long a replica may take to catch up after the last write.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(20);

/// The roles of the two nodes at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    pub(crate) primary: Node,
    pub(crate) replica: Node,
}

/// Both nodes, and the command that controls them.
pub(crate) struct Cluster {
    nodes: [Node; 2],
    control: Arc<dyn Control>,
}

impl Cluster {
    pub(crate) fn new(nodes: [Node; 2], control: impl Control) -> Self {
        Self { nodes, control: Arc::new(control) }
    }

    pub(crate) fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// Runs the control command for a node and waits until it has ended.
    pub(crate) async fn run(&self, verb: Verb, node: &Node) -> Result<String, Problem> {
        let (control, name) = (Arc::clone(&self.control), node.name().to_owned());
        tokio::task::spawn_blocking(move || control.run(verb, &name)).await?
    }

    /// Starts nodes that are down, and waits until one is the primary and the other its replica.
    pub(crate) async fn wait_for_roles(&self) -> Result<Roles, Problem> {
        for node in &self.nodes {
            self.run(Verb::Start, node).await?;
        }
        wait(SETTLE, "one node to be primary and the other its replica", async || {
            self.roles().await
        })
        .await
    }

    /// Both nodes' roles, if the nodes agree with each other and with LiteFS.
    pub(crate) async fn roles(&self) -> Result<Option<Roles>, Problem> {
        let [a, b] = &self.nodes;
        let (of_a, of_b) = (a.status().await?, b.status().await?);
        let roles = match (follows(&of_a, b), follows(&of_b, a)) {
            (false, true) if of_a.tracker.role == "primary" => (a, b),
            (true, false) if of_b.tracker.role == "primary" => (b, a),
            _ => return Ok(None),
        };
        let (primary, replica) = roles;
        let litefs_agrees = primary.info().await?.is_primary && !replica.info().await?.is_primary;
        Ok(litefs_agrees.then(|| Roles { primary: primary.clone(), replica: replica.clone() }))
    }

    /// Waits until both nodes' files are at the same position, and returns the rows, which must be
    /// equal.
    pub(crate) async fn same_rows(&self) -> Result<Vec<Row>, Problem> {
        let [a, b] = &self.nodes;
        wait(CATCH_UP, "both nodes to have the same position", async || {
            let (of_a, of_b) = (a.status().await?, b.status().await?);
            Ok((of_a.tracker.position.is_some() && of_a.tracker.position == of_b.tracker.position)
                .then_some(()))
        })
        .await?;
        let (of_a, of_b) = (a.rows().await?, b.rows().await?);
        if of_a != of_b {
            return Err(format!(
                "the same position, but {} rows and {} rows",
                of_a.len(),
                of_b.len()
            )
            .into());
        }
        Ok(of_a)
    }
}

fn follows(status: &Status, other: &Node) -> bool {
    status.tracker.role == "replica" && status.tracker.primary.as_deref() == Some(other.name())
}

/// Waits until `check` returns a value. An error, as from a node that is starting, does not end the
/// wait.
///
/// # Errors
/// If `limit` passes first; the message contains the last error of `check`.
pub(crate) async fn wait<T>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<Option<T>, Problem>,
) -> Result<T, Problem> {
    let until = Instant::now() + limit;
    let mut last = String::new();
    while Instant::now() < until {
        match check().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => last.clear(),
            Err(error) => last = format!(" ({error})"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("waited {limit:?} for {what}{last}").into())
}
