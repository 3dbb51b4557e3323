//! E7: the primary is killed under load.

use std::time::{Duration, Instant};

use super::support::{ensure, key, wait_for_primary};
use crate::cluster::{Cluster, Roles, wait};
use crate::control::Verb;
use crate::judge::{Death, Judgement};
use crate::load::Load;
use crate::problem::Problem;

/// The number of acknowledged writes per node before and after.
const WRITES: u64 = 150;
/// How long these may take.
const LIMIT: Duration = Duration::from_secs(30);

/// E7: writes that were acknowledged and shipped are stored once on both nodes, refused ones are
/// not, and numbers do not go back. Writes that the dead primary acknowledged and did not ship are
/// counted separately: LiteFS may lose them.
pub(super) async fn under_load(cluster: &Cluster, writers: u16) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    let load = Load::start(cluster.nodes(), &key("e7", 0), writers);
    let killed = kill_in_the_middle(cluster, &roles, &load).await;
    // Also after an error: no write may reach the next scenario.
    let seen = load.stop().await?;
    let death = killed?;
    let rows = cluster.same_rows().await?;
    let judgement = Judgement::of(&seen.attempts, &rows, Some(&death));
    let failover = death.succeeded_at - death.dead_at;
    let reads = seen.reads_summary();
    let text = format!("new primary after {:.1} s; {reads}; {judgement}", failover.as_secs_f64());
    // The survivor lacks the writes that were lost with the dead primary.
    let seen_what_was_acknowledged = seen.unseen.len() as u64 <= judgement.lost_by_litefs;
    // The survivor's own reads are local: they work without a primary.
    let failed_there =
        seen.failed_reads.iter().filter(|(node, _)| node == roles.replica.name()).count();
    let text = format!("{text}; {failed_there} reads failed on the survivor");
    ensure(
        judgement.is_good() && seen_what_was_acknowledged && failed_there == 0,
        text.clone() + &seen.failures_summary(),
    )?;
    Ok(text)
}

async fn kill_in_the_middle(
    cluster: &Cluster,
    roles: &Roles,
    load: &Load,
) -> Result<Death, Problem> {
    both_acknowledge(load).await?;
    cluster.run(Verb::Kill, &roles.primary).await?;
    let dead_at = Instant::now();
    let shipped = shipped_to(roles).await?;
    wait_for_primary(&roles.replica).await?;
    let succeeded_at = Instant::now();
    let survivor = usize::from(cluster.nodes()[1].name() == roles.replica.name());
    load.wait_for(survivor, WRITES, LIMIT).await?;
    let again = cluster.wait_for_roles().await?;
    ensure(
        again.replica.name() == roles.primary.name(),
        "the killed primary came back as the primary",
    )?;
    both_acknowledge(load).await?;
    Ok(Death { dead_at, succeeded_at, shipped })
}

async fn both_acknowledge(load: &Load) -> Result<(), Problem> {
    for node in 0..2 {
        load.wait_for(node, WRITES, LIMIT).await?;
    }
    Ok(())
}

/// The last transaction that the survivor received: its position once it no longer changes, while
/// the survivor is not the primary yet.
async fn shipped_to(roles: &Roles) -> Result<u64, Problem> {
    let mut last = None;
    wait(LIMIT, "the survivor's position to stop changing", async || {
        let tracker = roles.replica.status().await?.tracker;
        ensure(
            tracker.role != "primary",
            "the survivor was the primary before its position was read",
        )?;
        let now = tracker.position.map(|position| position.txid);
        Ok(now.filter(|_| std::mem::replace(&mut last, now) == now))
    })
    .await
}
