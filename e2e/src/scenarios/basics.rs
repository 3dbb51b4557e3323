//! E1 to E3: status and writes without failures.

use super::support::{ensure, key};
use crate::cluster::{CATCH_UP, Cluster, wait};
use crate::problem::Problem;
use crate::wire::New;

/// An airport of the data set that the application downloads.
const AIRPORT: &str = "ITO";

/// E1: both applications report their own role and the primary as LiteFS does, and every detector
/// works.
pub(super) async fn status(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    cluster.same_rows().await?;
    for node in cluster.nodes() {
        let tracker = node.status().await?.tracker;
        // A replica learns its own name from LiteFS only after it has been the primary.
        let named = tracker.node.is_none_or(|named| named == node.name());
        ensure(named, format!("{} reports the name of another node", node.name()))?;
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
    ensure(
        after.local_writes == before.local_writes + 1,
        "the primary did not write to its own file",
    )?;
    ensure(after.forwarded == before.forwarded, "the primary forwarded")?;
    wait(CATCH_UP, "the replica to show the row", async || {
        Ok(roles.replica.find(&row.id).await?.filter(|(found, _)| *found == row))
    })
    .await?;
    Ok("written on the primary, visible on the replica".into())
}

/// E3: every kind of statement, including the INSERT in a GET.
pub(super) async fn write_on_the_replica(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    let (primary, replica) = (&roles.primary, &roles.replica);
    let before = replica.status().await?.counters;
    let row = replica.post(&New::row(&key("e3", 0), 1)).await.row()?;
    for node in [replica, primary] {
        let found = node.find(&row.id).await?.map(|(row, _)| row);
        ensure(
            found.as_ref() == Some(&row),
            format!("{} returned {found:?} instead of {row:?}", node.name()),
        )?;
    }
    let changed = replica.set(&row.id, 2).await.row()?;
    ensure(changed.new.latitude == 2.0, "the response did not contain the changed row")?;
    for node in [replica, primary] {
        let found = node.find(&row.id).await?.map(|(row, _)| row);
        ensure(
            found.as_ref() == Some(&changed),
            format!("{} does not return the change", node.name()),
        )?;
    }
    replica.delete(&row.id).await.acknowledged()?;
    for node in [replica, primary] {
        ensure(
            node.find(&row.id).await?.is_none(),
            format!("{} still returns the deleted row", node.name()),
        )?;
    }
    let first = replica.find(AIRPORT).await?;
    let wrote = u64::from(matches!(first, Some((_, false))));
    for node in [replica, primary] {
        let stored = matches!(node.find(AIRPORT).await?, Some((_, true)));
        ensure(
            stored,
            format!("{} has not stored the row that a GET on the replica downloaded", node.name()),
        )?;
    }
    let after = replica.status().await?.counters;
    ensure(after.local_writes == before.local_writes, "the replica wrote to its own file")?;
    let forwarded = after.forwarded - before.forwarded;
    ensure(forwarded == 3 + wrote, format!("{forwarded} writes were forwarded"))?;
    Ok(format!("{forwarded} writes forwarded"))
}
