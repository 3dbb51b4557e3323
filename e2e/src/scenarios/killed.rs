//! E7: the primary dies under load.

use std::time::{Duration, Instant};

use super::failover::is_primary;
use super::must;
use crate::Problem;
use crate::cluster::{Cluster, Roles, wait};
use crate::control::Verb;
use crate::judge::{Death, Judgement};
use crate::load::Load;

/// Acknowledged writes per node before and after.
const WRITES: u64 = 150;
/// How long these may take.
const LIMIT: Duration = Duration::from_secs(30);

/// E7: whatever was acknowledged and shipped is there once, on both nodes, whatever was refused is not, and numbers do not
/// go back. What the dead primary had acknowledged and not shipped is counted apart: LiteFS may lose it.
pub(super) async fn under_load(cluster: &Cluster, writers: u16) -> Result<String, Problem> {
    let roles = cluster.settled().await?;
    let load = Load::start(cluster.nodes(), &super::key("e7", 0), writers);
    let killed = kill_in_the_middle(cluster, &roles, &load).await;
    // Whatever happened: nobody writes on into the next scenario.
    let seen = load.stop().await?;
    let death = killed?;
    let rows = cluster.same_rows().await?;
    let judgement = Judgement::of(&seen.attempts, &rows, Some(&death));
    let failover = death.succeeded_at - death.dead_at;
    let reads = seen.reads_in_words();
    let text = format!("new primary after {:.1} s; {reads}; {judgement}", failover.as_secs_f64());
    // What went with the dead primary is not shown by the survivor either.
    let seen_what_was_acknowledged = seen.unseen.len() as u64 <= judgement.lost_by_litefs;
    // Its own reads are local: they go on without a primary.
    let failed_there = seen.failed_reads.iter().filter(|(node, _)| node == roles.replica.name()).count();
    let text = format!("{text}; {failed_there} reads failed on the survivor");
    must(
        judgement.is_good() && seen_what_was_acknowledged && failed_there == 0,
        text.clone() + &seen.failures_in_words(),
    )?;
    Ok(text)
}

async fn kill_in_the_middle(cluster: &Cluster, roles: &Roles, load: &Load) -> Result<Death, Problem> {
    both_acknowledge(load).await?;
    cluster.tell(Verb::Kill, &roles.primary).await?;
    let dead_at = Instant::now();
    let shipped = shipped_to(roles).await?;
    is_primary(&roles.replica).await?;
    let succeeded_at = Instant::now();
    let survivor = usize::from(cluster.nodes()[1].name() == roles.replica.name());
    load.wait_for(survivor, WRITES, LIMIT).await?;
    let again = cluster.settled().await?;
    must(again.replica.name() == roles.primary.name(), "the killed primary came back as the primary")?;
    both_acknowledge(load).await?;
    Ok(Death { dead_at, succeeded_at, shipped })
}

async fn both_acknowledge(load: &Load) -> Result<(), Problem> {
    for node in 0..2 {
        load.wait_for(node, WRITES, LIMIT).await?;
    }
    Ok(())
}

/// The last transaction that the survivor got: its position when it no longer moves, while it is not the primary yet.
async fn shipped_to(roles: &Roles) -> Result<u64, Problem> {
    let mut last = None;
    wait(LIMIT, "the survivor's position to stand still", async || {
        let tracker = roles.replica.status().await?.tracker;
        must(tracker.role != "primary", "the survivor was the primary before its position was read")?;
        let now = tracker.position.map(|position| position.txid);
        Ok(now.filter(|_| std::mem::replace(&mut last, now) == now))
    })
    .await
}
