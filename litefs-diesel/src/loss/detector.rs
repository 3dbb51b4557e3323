//! Looks, after each change of primary, whether the new one has what the former ones have
//! acknowledged.

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_core::{NodeName, Position, Tracker};

use crate::loss::ack_log::{AckLog, Acknowledged, LostWrites, OnLostWrites, lost};
use crate::loss::terms::Term;
use crate::node::address_table::TrackingTable;
use crate::node::own_name::own_names;

/// What it takes to look and to tell.
#[derive(Clone)]
pub(crate) struct LossDetector {
    pub(crate) ack_log: Arc<AckLog>,
    pub(crate) tracker: Tracker,
    pub(crate) table: Arc<TrackingTable>,
    pub(crate) database_url: String,
    pub(crate) hear: Option<OnLostWrites>,
}

impl LossDetector {
    /// Looks at everything that was begun before the term of `primary`, which began at `began`. The
    /// local file is in its history, and has come as far as anything can be that this process was
    /// told before now.
    pub(crate) async fn look(
        &self,
        previous: Vec<(u64, Acknowledged)>,
        primary: &NodeName,
        term_start: Position,
    ) {
        let term = Term { node: primary.to_string(), term_start };
        let (loss_detector, generation) = (self.clone(), self.ack_log.generation());
        // Goes on by itself when nobody waits for it any more.
        let looked =
            tokio::task::spawn_blocking(move || loss_detector.tell(&previous, term, generation))
                .await;
        if let Err(error) = looked {
            tracing::error!(%error, "whether acknowledged writes were lost could not be told");
        }
    }

    fn tell(&self, previous: &[(u64, Acknowledged)], term: Term, generation: u64) {
        let mut file = SqliteConnection::establish(&self.database_url).ok();
        if let Some(file) = &mut file {
            file.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
            let _ = file.batch_execute("PRAGMA busy_timeout = 2000");
        }
        let mut terms = self.table.terms();
        let primary = term.node.clone();
        if terms.last() != Some(&term) {
            terms.push(term);
        }
        let lost = lost(previous, &terms, &own_names(&self.tracker), |id| {
            file.as_mut().and_then(|file| litefs_rpc::sqlite::is_applied(file, id).ok())
        });
        self.ack_log.settle(previous, &lost, generation);
        let writes: Vec<_> = lost.into_iter().map(|(_, write)| write).collect();
        let Some(first) = writes.first() else { return };
        metrics::counter!("litefs_lost_writes_total").increment(writes.len() as u64);
        tracing::error!(
            count = writes.len(),
            primary,
            first = %first.position,
            "acknowledged writes are not in the new primary's history: the previous one died \
             before it had shipped them"
        );
        if let Some(hear) = &self.hear {
            hear(&LostWrites { primary, writes });
        }
    }
}
