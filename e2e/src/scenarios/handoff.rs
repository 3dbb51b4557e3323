//! E8: the primary is handed over under load.

use std::time::Duration;

use super::must;
use crate::Problem;
use crate::cluster::{Cluster, Roles, SETTLE, wait};
use crate::judge::Judgement;
use crate::load::Load;

/// Acknowledged writes per node before, between and after the handoffs.
const WRITES: u64 = 100;
/// How long these may take.
const LIMIT: Duration = Duration::from_secs(30);
/// There and back, and there again.
const HANDOFFS: usize = 3;

/// E8: no request fails, no answer is unknown, and everything is there once.
pub(super) async fn under_load(cluster: &Cluster, writers: u16) -> Result<String, Problem> {
    let mut roles = cluster.settled().await?;
    let load = Load::start(cluster.nodes(), &super::key("e8", 0), writers);
    let handed = hand_over_again_and_again(cluster, &mut roles, &load).await;
    let seen = load.stop().await?;
    let longest = handed
        .map_err(|problem| format!("{problem}; {}{}", seen.reads_in_words(), seen.failures_in_words()))?;
    let judgement = Judgement::of(&seen.attempts, &cluster.same_rows().await?, None);
    let reads = seen.reads_in_words();
    let failures = seen.failures_in_words();
    let text = format!("{HANDOFFS} handoffs, the longest {longest:?}; {reads}; {judgement}{failures}");
    let none_failed = judgement.refused == 0 && judgement.unknown == 0 && seen.failed_reads.is_empty();
    must(judgement.is_good() && seen.unseen.is_empty() && none_failed, &text)?;
    Ok(text)
}

async fn hand_over_again_and_again(
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

/// Makes the replica the primary while clients go on; the library sees to it that nothing is lost. Returns the roles after
/// it.
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
