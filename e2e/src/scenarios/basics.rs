//! E1 to E3: status and writes without failures.

use super::support::{ensure, key};
use crate::cluster::{CATCH_UP, Cluster, wait};
use crate::problem::Problem;
use crate::wire::New;

/// An airport of the data set that the application downloads from.
const AIRPORT: &str = "ITO";

/// E1: both applications know their own role and the primary, as LiteFS does, and every detector
/// works.
pub(super) async fn status(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    cluster.same_rows().await?;
    for node in cluster.nodes() {
        let tracker = node.status().await?.tracker;
        // LiteFS does not tell a replica its own name until it has been the primary.
        let named = tracker.node.is_none_or(|named| named == node.name());
        ensure(named, format!("{} takes itself for another node", node.name()))?;
        for detector in tracker.detectors {
            let works = matches!(detector.state.as_str(), "working" | "off");
            ensure(
                works,
                format!("{}: detector {} is {}", node.name(), detector.name, detector.state),
            )?;
        }
    }
    Ok(format!("{} is the primary, {} its replica", roles.primary.name(), roles.replica.name()))
}

/// E2.
pub(super) async fn write_on_the_primary(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    let before = roles.primary.status().await?.counters;
    let row = roles.primary.post(&New::row(&key("e2", 0), 1)).await.row()?;
    let after = roles.primary.status().await?.counters;
    ensure(after.local_writes == before.local_writes + 1, "the primary did not write here")?;
    ensure(after.forwarded == before.forwarded, "the primary forwarded")?;
    wait(CATCH_UP, "the replica to show the row", async || {
        Ok(roles.replica.find(&row.id).await?.filter(|(found, _)| *found == row))
    })
    .await?;
    Ok("written here, seen there".into())
}

/// E3: every kind of statement, among them the INSERT in a GET.
pub(super) async fn write_on_the_replica(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    let (primary, replica) = (&roles.primary, &roles.replica);
    let before = replica.status().await?.counters;
    let row = replica.post(&New::row(&key("e3", 0), 1)).await.row()?;
    for node in [replica, primary] {
        let found = node.find(&row.id).await?.map(|(row, _)| row);
        ensure(
            found.as_ref() == Some(&row),
            format!("{} shows {found:?} instead of {row:?}", node.name()),
        )?;
    }
    let changed = replica.set(&row.id, 2).await.row()?;
    ensure(changed.new.latitude == 2.0, "the changed row did not come back")?;
    for node in [replica, primary] {
        let found = node.find(&row.id).await?.map(|(row, _)| row);
        ensure(
            found.as_ref() == Some(&changed),
            format!("{} does not show the change", node.name()),
        )?;
    }
    replica.delete(&row.id).await.acknowledged()?;
    for node in [replica, primary] {
        ensure(
            node.find(&row.id).await?.is_none(),
            format!("{} still shows the deleted row", node.name()),
        )?;
    }
    let first = replica.find(AIRPORT).await?;
    let wrote = u64::from(matches!(first, Some((_, false))));
    for node in [replica, primary] {
        let stored = matches!(node.find(AIRPORT).await?, Some((_, true)));
        ensure(
            stored,
            format!("{} has not stored what a GET on the replica downloaded", node.name()),
        )?;
    }
    let after = replica.status().await?.counters;
    ensure(after.local_writes == before.local_writes, "the replica wrote to its own file")?;
    let forwarded = after.forwarded - before.forwarded;
    ensure(forwarded == 3 + wrote, format!("{forwarded} writes were forwarded"))?;
    Ok(format!("{forwarded} writes forwarded"))
}
