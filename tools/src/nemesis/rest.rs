//! Reading the final content of every node.

use std::time::{Duration, Instant};

use litefs_examples::Problem;
use tokio::runtime::Handle;

use super::client::ClientContext;
use super::history::Row;
use super::node::Holding;

/// How long the nodes may take to finish their operations and to catch up.
pub(super) const REST_LIMIT: Duration = Duration::from_secs(30);
/// The interval of polling nodes that are busy.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until no operation is under way and all nodes are at the same position, then reads them in
/// full.
pub(super) fn read_all<P: PartialEq>(
    names: &[String],
    shared: &ClientContext,
    runtime: &Handle,
    positions: impl Fn() -> Result<Vec<P>, Problem>,
) -> Result<Vec<(String, Vec<Row>)>, Problem> {
    let deadline = Instant::now() + REST_LIMIT;
    loop {
        let before = positions()?;
        let same = before.windows(2).all(|pair| pair[0] == pair[1]);
        let held = (0..names.len()).map(|node| holding(shared, runtime, node));
        let held = held.collect::<Result<Vec<_>, _>>()?;
        let idle = held.iter().all(|holding| holding.under_way == 0);
        if same && idle && positions()? == before {
            return Ok(names
                .iter()
                .cloned()
                .zip(held.into_iter().map(|holding| holding.rows))
                .collect());
        }
        if Instant::now() >= deadline {
            let busy: Vec<_> = held.iter().map(|holding| holding.under_way).collect();
            return Err(format!("the nodes are still busy; operations under way: {busy:?}").into());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn holding(shared: &ClientContext, runtime: &Handle, node: usize) -> Result<Holding, Problem> {
    let endpoint = shared.endpoint(node).ok_or_else(|| format!("node {node} does not serve"))?;
    let request = shared.http.get(format!("{}/rows", endpoint.url));
    runtime.block_on(async {
        let answer = request.send().await?;
        if !answer.status().is_success() {
            return Err(answer.text().await?.into());
        }
        Ok(answer.json().await?)
    })
}
