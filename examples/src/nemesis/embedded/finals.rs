//! Reading what every node has in the end.

use std::time::{Duration, Instant};

use litefs_testkit::Cluster;

use super::Embedded;
use crate::Problem;
use crate::nemesis::fleet::NAMES;
use crate::nemesis::history::Row;
use crate::nemesis::node::Holding;

/// How long the nodes may take to finish what they were asked for and to catch up.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at nodes that are not at rest.
const LOOK: Duration = Duration::from_millis(100);

impl Embedded {
    /// Waits until no node does anything and all have the same transaction, and reads them in full.
    pub(super) fn read_all(&self) -> Result<Vec<(String, Vec<Row>)>, Problem> {
        let controls =
            (0..NAMES.len()).map(|node| self.fleet.control(node).map(|control| control.http_url()));
        let cluster = Cluster::attach(controls.collect::<Result<Vec<_>, _>>()?)?;
        let deadline = Instant::now() + REST_LIMIT;
        loop {
            cluster.wait_for_sync(REST_LIMIT)?;
            let before = self.txids()?;
            let held = (0..NAMES.len()).map(|node| self.holding(node)).collect::<Result<Vec<_>, _>>()?;
            let idle = held.iter().all(|holding| holding.under_way == 0);
            if idle && self.txids()? == before {
                return Ok(NAMES
                    .iter()
                    .map(|name| (*name).to_owned())
                    .zip(held.into_iter().map(|h| h.rows))
                    .collect());
            }
            if Instant::now() >= deadline {
                let busy: Vec<_> = held.iter().map(|holding| holding.under_way).collect();
                return Err(format!("the nodes do not come to rest; operations under way: {busy:?}").into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn txids(&self) -> Result<Vec<u64>, Problem> {
        (0..NAMES.len()).map(|node| self.fleet.txid(node)).collect()
    }

    fn holding(&self, node: usize) -> Result<Holding, Problem> {
        let endpoint = self.shared.endpoint(node).ok_or_else(|| format!("{} does not serve", NAMES[node]))?;
        let request = self.shared.http.get(format!("{}/rows", endpoint.url));
        self.runtime.block_on(async {
            let answer = request.send().await?;
            if !answer.status().is_success() {
                return Err(answer.text().await?.into());
            }
            Ok(answer.json().await?)
        })
    }
}
