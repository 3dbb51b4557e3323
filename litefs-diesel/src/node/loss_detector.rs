//! The loss detector: after each change of primary it checks whether the new primary has the
//! writes that earlier primaries acknowledged.

use std::sync::Arc;

use diesel::connection::{Connection, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use litefs_core::{NodeName, Position, Tracker};

use super::address_table::TrackingTable;
use super::own_name::own_names;
use crate::loss::ack_log::{AckLog, Acknowledged, lost};
use crate::loss::terms::Term;
use crate::loss::{LostWrites, OnLostWrites};

/// Checks acknowledged writes and reports those that are lost.
#[derive(Clone)]
pub(crate) struct LossDetector {
    pub(crate) ack_log: Arc<AckLog>,
    pub(crate) tracker: Tracker,
    pub(crate) table: Arc<TrackingTable>,
    pub(crate) database_url: String,
    pub(crate) on_lost_writes: Option<OnLostWrites>,
}

impl LossDetector {
    /// Checks the writes of earlier terms than `primary`'s, which starts at `term_start`. The local
    /// file must be in its history, and must have all that was acknowledged before.
    pub(crate) async fn check(
        &self,
        previous: Vec<(u64, Acknowledged)>,
        primary: &NodeName,
        term_start: Position,
    ) {
        let term = Term { node: primary.to_string(), term_start };
        let (loss_detector, generation) = (self.clone(), self.ack_log.generation());
        // Continues if the caller is dropped.
        let checked =
            tokio::task::spawn_blocking(move || loss_detector.report(&previous, term, generation))
                .await;
        if let Err(error) = checked {
            tracing::error!(%error, "cannot check whether acknowledged writes were lost");
        }
    }

    fn report(&self, previous: &[(u64, Acknowledged)], term: Term, generation: u64) {
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
        self.ack_log.checked(previous, &lost, generation);
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
        if let Some(on_lost_writes) = &self.on_lost_writes {
            on_lost_writes(&LostWrites { primary, writes });
        }
    }
}
