//! E6: transactions and migrations from the replica.

use super::support::{ensure, key};
use crate::cluster::Cluster;
use crate::control::Verb;
use crate::node::{Node, Outcome};
use crate::problem::Problem;
use crate::wire::{New, Row};

/// The number of rows in one transaction.
const ROWS: usize = 20;
/// The number of transactions that both nodes try at the same time.
const RACES: usize = 20;
/// The row that the application's migration inserts each time it is applied.
const MIGRATED: &str = "migration-1";

/// E6: a transaction that reads and then writes is applied as a whole or not at all; of two with
/// the same rows one wins; a migration that both nodes run at the same time, each in a separate
/// process, is applied once.
pub(super) async fn from_the_replica(cluster: &Cluster) -> Result<String, Problem> {
    let roles = cluster.wait_for_roles().await?;
    let before = cluster.same_rows().await?.len();
    let good = batch("e6");
    roles.replica.import(&good).await.acknowledged()?;
    ensure(
        has(&roles.replica, &good).await?,
        "the replica does not return the transaction that it acknowledged",
    )?;
    // One of these rows exists already; it comes last.
    let mut mixed = batch("e6-mixed");
    mixed.extend(good.first().cloned());
    let refused = roles.replica.import(&mixed).await;
    ensure(
        matches!(refused, Outcome::Refused(_)),
        format!("{refused:?} for a row that exists already"),
    )?;
    let races = race(&roles.primary, &roles.replica).await?;
    let migrated = migrate(cluster).await?;
    let rows = cluster.same_rows().await?;
    let expected = before + ROWS + RACES * ROWS + migrated;
    ensure(rows.len() == expected, format!("{} rows instead of {expected}", rows.len()))?;
    let count = rows.iter().filter(|row| row.new.client_key.as_deref() == Some(MIGRATED)).count();
    ensure(count == 1, format!("the migration was applied {count} times"))?;
    Ok(format!(
        "{RACES} races for the same rows, {races} won by the replica; the migration is applied once"
    ))
}

/// Both nodes import the same rows at the same time, repeatedly. Returns how often the replica won.
async fn race(primary: &Node, replica: &Node) -> Result<usize, Problem> {
    let mut won = 0;
    for number in 0..RACES {
        let rows = batch(&format!("e6-race-{number}"));
        let (there, here) = tokio::join!(primary.import(&rows), replica.import(&rows));
        match (&there, &here) {
            (Outcome::Acknowledged { .. }, Outcome::Refused(_)) => {}
            (Outcome::Refused(_), Outcome::Acknowledged { .. }) => won += 1,
            _ => {
                return Err(format!(
                    "race {number}: {there:?} on the primary, {here:?} on the replica"
                )
                .into());
            }
        }
    }
    Ok(won)
}

/// Runs the migrations on both nodes at the same time, then once more, when none may be pending.
/// Returns the number of rows that the migration has inserted.
async fn migrate(cluster: &Cluster) -> Result<usize, Problem> {
    let [a, b] = cluster.nodes();
    let (of_a, of_b) = tokio::join!(cluster.run(Verb::Migrate, a), cluster.run(Verb::Migrate, b));
    let versions = |text: String| Ok::<Vec<String>, Problem>(serde_json::from_str(&text)?);
    let seen_through = versions(of_a?)?.len().max(versions(of_b?)?.len());
    for node in [a, b] {
        let left = versions(cluster.run(Verb::Migrate, node).await?)?;
        ensure(left.is_empty(), format!("{} still had to apply {left:?}", node.name()))?;
    }
    Ok(seen_through)
}

fn batch(name: &str) -> Vec<Row> {
    (0..ROWS)
        .map(|number| key(name, number))
        .map(|key| New::row(&key, 1).with_id(key.clone()))
        .collect()
}

async fn has(node: &Node, rows: &[Row]) -> Result<bool, Problem> {
    let all = node.rows().await?;
    Ok(rows.iter().all(|row| all.contains(row)))
}
