//! E4 and E5: the primary stops gracefully, and returns.

use std::time::Instant;

use super::support::{ensure, key, wait_for_primary};
use crate::cluster::Cluster;
use crate::control::Verb;
use crate::node::Node;
use crate::problem::Problem;
use crate::wire::New;

/// The number of rows that each step writes.
const ROWS: usize = 50;

/// E4. The old primary stays stopped.
pub(super) async fn the_primary_stops(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    write(&[&roles.primary, &roles.replica], "e4-before").await?;
    let before = cluster.same_rows().await?;
    let stopping = Instant::now();
    cluster.run(Verb::Stop, &roles.primary).await?;
    wait_for_primary(&roles.replica).await?;
    let took = stopping.elapsed();
    ensure(
        roles.replica.rows().await? == before,
        "the new primary lacks rows that both nodes had",
    )?;
    write(&[&roles.replica], "e4-after").await?;
    let rows = roles.replica.rows().await?.len();
    ensure(
        rows == before.len() + ROWS,
        format!("{rows} rows, {} and {ROWS} were to be there", before.len()),
    )?;
    Ok(format!(
        "{} took over {:.1} s after the stop began; {rows} rows, none missing",
        roles.replica.name(),
        took.as_secs_f64()
    ))
}

/// E5. Starts from the state that E4 leaves; if E4 did not run, stops the primary first.
pub(super) async fn the_old_primary_returns(cluster: &Cluster) -> Result<String, Problem> {
    let (old, new) = one_stopped(cluster).await?;
    write(&[&new], "e5-alone").await?;
    let before = new.rows().await?;
    let roles = cluster.wait_for_roles().await?;
    ensure(roles.replica.name() == old.name(), format!("{} came back as the primary", old.name()))?;
    ensure(cluster.same_rows().await? == before, "the nodes lack rows that the primary had")?;
    let forwarded = old.status().await?.counters.forwarded;
    for number in 0..ROWS {
        let row = old.post(&New::row(&key("e5", number), 1)).await.row()?;
        let found = old.find(&row.id).await?.map(|(row, _)| row);
        ensure(
            found.as_ref() == Some(&row),
            format!("{} does not return the rows that it forwarded", old.name()),
        )?;
    }
    let forwarded = old.status().await?.counters.forwarded - forwarded;
    ensure(forwarded == ROWS as u64, format!("{forwarded} of {ROWS} writes were forwarded"))?;
    let rows = cluster.same_rows().await?.len();
    ensure(
        rows == before.len() + ROWS,
        format!("{rows} rows, {} and {ROWS} were to be there", before.len()),
    )?;
    Ok(format!("{} is back and forwarded {forwarded}; {rows} rows on both", old.name()))
}

/// The stopped node and the primary.
async fn one_stopped(cluster: &Cluster) -> Result<(Node, Node), Problem> {
    let [a, b] = cluster.nodes();
    let (old, new) = match (a.status().await.is_ok(), b.status().await.is_ok()) {
        (false, true) => (a.clone(), b.clone()),
        (true, false) => (b.clone(), a.clone()),
        _ => {
            let roles = cluster.wait_for_roles().await?;
            cluster.run(Verb::Stop, &roles.primary).await?;
            (roles.primary, roles.replica)
        }
    };
    wait_for_primary(&new).await?;
    Ok((old, new))
}

/// Writes rows, alternating between the nodes.
async fn write(nodes: &[&Node], name: &str) -> Result<(), Problem> {
    for (number, node) in (0..ROWS).zip(nodes.iter().cycle()) {
        node.post(&New::row(&key(name, number), 1)).await.row()?;
    }
    Ok(())
}
