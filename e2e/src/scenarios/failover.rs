//! E4 and E5: the primary stops in good order, and comes back.

use std::time::Instant;

use super::{key, must};
use crate::Problem;
use crate::cluster::{Cluster, SETTLE, wait};
use crate::control::Verb;
use crate::node::Node;
use crate::wire::New;

/// Rows that are written at each station.
const ROWS: usize = 50;

/// E4. Leaves the old primary stopped.
pub(super) async fn the_primary_stops(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.settled().await?;
    write(&[&roles.primary, &roles.replica], "e4-before").await?;
    let before = cluster.same_rows().await?;
    let stopping = Instant::now();
    cluster.tell(Verb::Stop, &roles.primary).await?;
    is_primary(&roles.replica).await?;
    let took = stopping.elapsed();
    must(roles.replica.rows().await? == before, "the new primary has not what both had")?;
    write(&[&roles.replica], "e4-after").await?;
    let rows = roles.replica.rows().await?.len();
    must(rows == before.len() + ROWS, format!("{rows} rows, {} and {ROWS} were to be there", before.len()))?;
    Ok(format!(
        "{} took over {:.1} s after the stop began; {rows} rows, none missing",
        roles.replica.name(),
        took.as_secs_f64()
    ))
}

/// E5. Goes on where E4 ended; without it, the primary is stopped first.
pub(super) async fn the_old_primary_returns(cluster: &Cluster) -> Result<String, Problem> {
    let (old, new) = one_stopped(cluster).await?;
    write(&[&new], "e5-alone").await?;
    let before = new.rows().await?;
    let roles = cluster.settled().await?;
    must(roles.replica.name() == old.name(), format!("{} came back as the primary", old.name()))?;
    must(cluster.same_rows().await? == before, "the nodes have not what the primary had")?;
    let forwarded = old.status().await?.counters.forwarded;
    for number in 0..ROWS {
        let row = old.post(&New::row(&key("e5", number), 1)).await.row()?;
        let found = old.find(&row.id).await?.map(|(row, _)| row);
        must(found.as_ref() == Some(&row), format!("{} does not show what it forwarded", old.name()))?;
    }
    let forwarded = old.status().await?.counters.forwarded - forwarded;
    must(forwarded == ROWS as u64, format!("{forwarded} of {ROWS} writes were forwarded"))?;
    let rows = cluster.same_rows().await?.len();
    must(rows == before.len() + ROWS, format!("{rows} rows, {} and {ROWS} were to be there", before.len()))?;
    Ok(format!("{} is back and forwarded {forwarded}; {rows} rows on both", old.name()))
}

/// The stopped node and the one that is the primary.
async fn one_stopped(cluster: &Cluster) -> Result<(Node, Node), Problem> {
    let [a, b] = cluster.nodes();
    let (old, new) = match (a.status().await.is_ok(), b.status().await.is_ok()) {
        (false, true) => (a.clone(), b.clone()),
        (true, false) => (b.clone(), a.clone()),
        _ => {
            let roles = cluster.settled().await?;
            cluster.tell(Verb::Stop, &roles.primary).await?;
            (roles.primary, roles.replica)
        }
    };
    is_primary(&new).await?;
    Ok((old, new))
}

/// Waits until a node is the primary.
pub(super) async fn is_primary(node: &Node) -> Result<(), Problem> {
    let what = format!("{} to become the primary", node.name());
    wait(SETTLE, &what, async || Ok((node.status().await?.tracker.role == "primary").then_some(()))).await
}

/// Writes rows, in turn on each of the nodes.
async fn write(nodes: &[&Node], name: &str) -> Result<(), Problem> {
    for (number, node) in (0..ROWS).zip(nodes.iter().cycle()) {
        node.post(&New::row(&key(name, number), 1)).await.row()?;
    }
    Ok(())
}
