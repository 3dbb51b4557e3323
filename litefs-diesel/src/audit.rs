//! Looks, after each change of primary, whether the new one has what the former ones have acknowledged.

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_core::{NodeName, Position, Tracker};

use crate::losses::{Acknowledged, Ledger, LostWrites, OnLostWrites, lost};
use crate::own_name::own_names;
use crate::reigns::Reign;
use crate::tracking_table::TrackingTable;

/// What it takes to look and to tell.
#[derive(Clone)]
pub(crate) struct Auditor {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tracker: Tracker,
    pub(crate) table: Arc<TrackingTable>,
    pub(crate) database_url: String,
    pub(crate) hear: Option<OnLostWrites>,
}

impl Auditor {
    /// Looks at everything that was begun before the reign of `primary`, which began at `began`. The local file is in its
    /// history, and has come as far as anything can be that this process was told before now.
    pub(crate) async fn look(&self, former: Vec<(u64, Acknowledged)>, primary: &NodeName, began: Position) {
        let reign = Reign { node: primary.to_string(), began };
        let (auditor, generation) = (self.clone(), self.ledger.generation());
        // Goes on by itself when nobody waits for it any more.
        let looked = tokio::task::spawn_blocking(move || auditor.tell(&former, reign, generation)).await;
        if let Err(error) = looked {
            tracing::error!(%error, "whether acknowledged writes were lost could not be told");
        }
    }

    fn tell(&self, former: &[(u64, Acknowledged)], reign: Reign, generation: u64) {
        let mut file = SqliteConnection::establish(&self.database_url).ok();
        if let Some(file) = &mut file {
            file.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
            let _ = file.batch_execute("PRAGMA busy_timeout = 2000");
        }
        let mut reigns = self.table.reigns();
        let primary = reign.node.clone();
        if reigns.last() != Some(&reign) {
            reigns.push(reign);
        }
        let lost = lost(former, &reigns, &own_names(&self.tracker), |id| {
            file.as_mut().and_then(|file| litefs_rpc::sqlite::is_applied(file, id).ok())
        });
        self.ledger.settle(former, &lost, generation);
        let writes: Vec<_> = lost.into_iter().map(|(_, write)| write).collect();
        let Some(first) = writes.first() else { return };
        metrics::counter!("litefs_lost_writes_total").increment(writes.len() as u64);
        tracing::error!(
            count = writes.len(),
            primary,
            first = %first.position,
            "acknowledged writes are not in the new primary's history: the former one died before it had shipped them"
        );
        if let Some(hear) = &self.hear {
            hear(&LostWrites { primary, writes });
        }
    }
}
