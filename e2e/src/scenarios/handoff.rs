//! E8: a handoff under load.

use std::time::Duration;

use super::support::{ensure, key};
use crate::cluster::{Cluster, Roles, SETTLE, wait};
use crate::judge::Judgement;
use crate::load::Load;
use crate::problem::Problem;

/// The number of acknowledged writes per node before, between and after the handoffs.
const WRITES: u64 = 100;
/// How long these may take.
const LIMIT: Duration = Duration::from_secs(30);
/// To the other node, back, and again.
const HANDOFFS: usize = 3;

/// E8: no request fails, no outcome is unknown, and every row is stored once.
pub(super) async fn under_load(cluster: &Cluster, writers: u16) -> Result<String, Problem> {
    let mut roles = cluster.wait_for_roles().await?;
    let load = Load::start(cluster.nodes(), &key("e8", 0), writers);
    let result = repeat_handoffs(cluster, &mut roles, &load).await;
    let seen = load.stop().await?;
    let longest = result.map_err(|problem| {
        format!("{problem}; {}{}", seen.reads_summary(), seen.failures_summary())
    })?;
    let judgement = Judgement::of(&seen.attempts, &cluster.same_rows().await?, None);
    let reads = seen.reads_summary();
    let failures = seen.failures_summary();
    let text =
        format!("{HANDOFFS} handoffs, the longest {longest:?}; {reads}; {judgement}{failures}");
    let none_failed =
        judgement.refused == 0 && judgement.unknown == 0 && seen.failed_reads.is_empty();
    ensure(judgement.is_good() && seen.unseen.is_empty() && none_failed, &text)?;
    Ok(text)
}

async fn repeat_handoffs(
    cluster: &Cluster,
    roles: &mut Roles,
    load: &Load,
) -> Result<Duration, Problem> {
    let mut longest = Duration::ZERO;
    for _ in 0..HANDOFFS {
        both_acknowledge(load).await?;
        let started = std::time::Instant::now();
        *roles = handoff(cluster, roles).await?;
        longest = longest.max(started.elapsed());
    }
    both_acknowledge(load).await?;
    Ok(longest)
}

/// Makes the replica the primary while clients are running. Returns the roles afterwards.
async fn handoff(cluster: &Cluster, roles: &Roles) -> Result<Roles, Problem> {
    let to = &roles.replica;
    roles.primary.handoff().await?;
    let what = format!("both nodes to know that {} is the primary", to.name());
    wait(SETTLE, &what, async || {
        let now = cluster.roles().await?;
        Ok(now.filter(|now| now.primary.name() == to.name()))
    })
    .await
}

async fn both_acknowledge(load: &Load) -> Result<(), Problem> {
    for node in 0..2 {
        load.wait_for(node, WRITES, LIMIT).await?;
    }
    Ok(())
}
